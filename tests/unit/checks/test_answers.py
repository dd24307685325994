"""Differences between two answers to one request: in [-1, 1], and above 0 where the challenger is worse."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.answers import MEASURES, Pair, repeated_share, worse_by
from lake.recipe.rollout_metrics import Direction, metric

GOOD = "Call sorted() on the list; it returns a new list in order."
REFUSAL = "I'm sorry, but I can't help with that."
HUGE = "So it goes on and on and on, " * 700  # 20,000 characters


def worse(name: str, champion: str, challenger: str, better: Direction | None = None) -> float | None:
    (values,) = MEASURES[name]([Pair("r", "How do I sort a list?", champion, challenger)])
    return worse_by(values, better or metric(name).better)


@given(st.text(max_size=300), st.text(max_size=300))
def test_every_difference_is_in_range_and_none_of_an_answer_to_itself(champion: str, challenger: str) -> None:
    for name in MEASURES:
        found = worse(name, champion, challenger)
        assert found is not None and -1 <= found <= 1
        assert worse(name, champion, champion) == 0


@pytest.mark.parametrize(
    ("name", "champion", "challenger", "expected"),
    [
        ("agreement", GOOD, GOOD, 0.0),
        ("agreement", "police killed the gunman", "police kill the gunman", 0.25),
        ("agreement", GOOD, "", 1.0),
        ("agreement", "", "", 0.0),
        ("answer_length", "one two three", "one", 0.5),
        ("answer_length", "one", "one two three", 0.5),  # longer is as bad as shorter
        ("answer_length", GOOD, "", 1.0),
        ("answer_length", "", "", 0.0),
        ("answer_length", "!!!", "...", 0.0),
        ("refusal_rate", GOOD, REFUSAL, 1.0),
        ("refusal_rate", REFUSAL, GOOD, -1.0),
        ("refusal_rate", REFUSAL, REFUSAL, 0.0),
        ("refusal_rate", "", "", 0.0),
        ("repetition", GOOD, "yes it is " * 50, 144 / 147),
        ("repetition", "yes it is " * 50, GOOD, -144 / 147),
        ("repetition", "", "", 0.0),
    ],
)
def test_higher_is_worse(name: str, champion: str, challenger: str, expected: float) -> None:
    assert worse(name, champion, challenger) == pytest.approx(expected)


def test_a_plan_may_turn_the_direction() -> None:
    """Short answers may be what the operator wants."""
    assert worse("answer_length", "one two three", "one", "lower") == pytest.approx(-0.5)
    assert worse("answer_length", "one", "one two three", "lower") == pytest.approx(0.5)
    assert worse("answer_length", "one", "one two three", "higher") == pytest.approx(-0.5)


def test_huge_answers_are_measured() -> None:
    for name in MEASURES:
        assert worse(name, GOOD, HUGE) is not None
    repetition = worse("repetition", GOOD, HUGE)
    assert repetition is not None and repetition > 0.9


def test_what_is_no_text_is_measured() -> None:
    for noise in ("\x00\x01\x02", "\ufffd" * 40, "🙂" * 30, "0x00 0xff " * 30, "\n\t \r"):
        for name in MEASURES:
            found = worse(name, GOOD, noise)
            assert found is not None and math.isfinite(found)


def test_what_cannot_be_told_is_not() -> None:
    assert worse_by(None, "lower") is None
    assert worse_by((1.0, math.nan), "lower") is None
    assert worse_by((math.inf, 1.0), "near") is None
    assert worse_by((0.0, 7.5), "lower") == 1.0  # a difference beyond the range is its end
    assert worse_by((0.0, 7.5), "higher") == -1.0


def test_repeated_share_is_that_of_four_grams() -> None:
    assert repeated_share("a b c") == 0
    assert repeated_share("a b c d a b c d") == pytest.approx(1 - 4 / 5)
