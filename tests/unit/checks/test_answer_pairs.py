"""Both versions' answers to one request find each other, in whatever order and however long apart they come."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from checks.answer_pairs import Pairs
from checks.answers import Pair
from lake.records import PredictionLog
from tests.predictions import prediction


def ours(number: int, **changes: Any) -> PredictionLog:
    return prediction(number, response=f"champion {number}", **changes)


def theirs(number: int, **changes: Any) -> PredictionLog:
    told = {"version": "v2", "shadow": True, "response": f"challenger {number}", **changes}
    return prediction(number, **told)


def expected(number: int) -> Pair:
    return Pair(f"request-{number:05d}", "How do I sort a list?", f"champion {number}", f"challenger {number}")


@given(st.randoms(use_true_random=False), st.integers(1, 9))
def test_every_request_pairs_once_in_any_order(draw: random.Random, n_rounds: int) -> None:
    rows = [side(number) for number in range(12) for side in (ours, theirs)]
    draw.shuffle(rows)
    pairs = Pairs("v1", "v2")
    found = [pair for first in range(n_rounds) for pair in pairs.join(rows[first::n_rounds])]
    assert sorted(found) == [expected(number) for number in range(12)]


def test_pairs_of_a_round_are_in_the_order_of_their_requests() -> None:
    pairs = Pairs("v1", "v2")
    pairs.join([ours(number) for number in (3, 1, 2)])
    assert pairs.join([theirs(number) for number in (2, 3, 1)]) == [expected(1), expected(2), expected(3)]


def test_only_answers_of_the_two_versions_in_their_places_pair() -> None:
    others = [
        theirs(1, shadow=False),  # the challenger's answer to a client that asked for it
        theirs(2, status=500),
        theirs(3, status=499),
        theirs(4, version="v3"),
        theirs(5, version="v1"),  # the champion, when it was the shadow
    ]
    answered = [ours(number) for number in range(1, 6)]
    assert Pairs("v1", "v2").join([*answered, *others]) == []
    assert Pairs("v1", "v2").join([ours(1, status=503), theirs(1)]) == []


def test_of_a_request_that_was_answered_twice_the_first_counts() -> None:
    pairs = Pairs("v1", "v2")
    again = ours(1).model_copy(update={"response": "again"})
    assert pairs.join([ours(1), again, theirs(1)]) == [expected(1)]


def test_what_waits_longest_is_given_up() -> None:
    pairs = Pairs("v1", "v2", max_waiting_characters=10_000)
    assert pairs.join(ours(number) for number in range(100)) == []
    late = pairs.join(theirs(number) for number in range(99, -1, -1))
    assert late
    assert late == [expected(number) for number in range(100 - len(late), 100)]


def test_an_answer_too_long_to_wait_does_not_stop_the_others() -> None:
    pairs = Pairs("v1", "v2", max_waiting_characters=10_000)
    huge = ours(1).model_copy(update={"response": "x" * 20_000})
    assert pairs.join([huge, ours(2), theirs(2)]) == [expected(2)]
