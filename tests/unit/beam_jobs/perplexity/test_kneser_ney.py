"""Against the formula written out with dictionaries, and against the one thing that every distribution must do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.perplexity.kneser_ney import KneserNey

BEGIN, ALPHABET = "^", "abcdef$"  # `f` may never be seen
Gram = tuple[str, ...]


def symbols(text: str) -> np.ndarray:
    return np.array([xxhash.xxh3_64_intdigest(character.encode()) for character in text], np.uint64)


def opened(sequences: Sequence[str], order: int) -> str:
    return "".join(BEGIN * (order - 1) + sequence + "$" for sequence in sequences)


def trained(sequences: Sequence[str], order: int) -> KneserNey:
    stream = opened(sequences, order)
    return KneserNey.train(symbols(stream), np.array([c != BEGIN for c in stream]), even(len(stream)), order)


def even(n: int) -> np.ndarray:
    return np.full(n, -math.log(len(ALPHABET)), np.float32)


def probability(model: KneserNey, context: str, symbol: str) -> float:
    stream = context + symbol
    return float(np.exp(model.log_probabilities(symbols(stream), even(len(stream)))[-1]))


class ByTheFormula:
    def __init__(self, sequences: Sequence[str], order: int) -> None:
        grams: Counter[Gram] = Counter()
        for sequence in sequences:
            stream = tuple(opened([sequence], order))
            grams.update(stream[end - order : end] for end in range(order, len(stream) + 1))
        self.counts = {order: grams}
        for length in range(order - 1, 0, -1):
            self.counts[length] = Counter(gram[1:] for gram in self.counts[length + 1])

    def probability(self, context: Gram, symbol: str) -> float:
        counts = self.counts[len(context) + 1]
        lower = self.probability(context[1:], symbol) if context else 1 / len(ALPHABET)
        following = [n for gram, n in counts.items() if gram[:-1] == context]
        if not following:
            return lower
        once, twice = list(counts.values()).count(1), list(counts.values()).count(2)
        discount = min(max(once / (once + 2 * twice) if once else 0.0, 0.1), 0.95)
        kept = max(counts[*context, symbol] - discount, 0)
        return (kept + discount * len(following) * lower) / sum(following)


texts = st.lists(st.text("abcde", max_size=12), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(texts, st.integers(1, 4))
def test_probabilities_are_those_of_the_formula(sequences: list[str], order: int) -> None:
    model, expected = trained(sequences, order), ByTheFormula(sequences, order)
    begin = BEGIN * (order - 1)
    for sequence in [*sequences[:3], "fa", "edcba"]:
        stream = begin + sequence + "$"
        found = model.log_probabilities(symbols(stream), even(len(stream)))
        for end in range(order - 1, len(stream)):
            context = tuple(stream[end - order + 1 : end])
            assert math.exp(found[end]) == pytest.approx(expected.probability(context, stream[end]), rel=1e-4)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("context", ["", "a", "ab", "aba", "ff", "fab", "e"])
def test_after_any_context_the_probabilities_of_all_symbols_sum_to_1(order: int, context: str) -> None:
    model = trained(["abab", "abba", "cab", "dede", "abcabc", ""], order)

    told = BEGIN * (order - 1) + context

    assert sum(probability(model, told, symbol) for symbol in ALPHABET) == pytest.approx(1, abs=1e-5)


def test_what_has_followed_is_likelier_than_what_has_not_and_that_is_possible() -> None:
    model = trained(["abab", "abab", "acab"], 3)

    assert probability(model, "^^ab", "a") > probability(model, "^^ab", "c") > 0


def test_a_symbol_seen_often_after_one_other_is_no_guess_after_a_third() -> None:
    """What Kneser–Ney is for: `San Francisco` makes `Francisco` frequent, not versatile."""
    model = trained(["ab"] * 20 + ["dc", "ec", "ac"], 2)

    assert probability(model, "f", "c") > probability(model, "f", "b")


def test_a_sequence_does_not_depend_on_those_before_it_in_the_stream() -> None:
    model = trained(["abab", "bc"], 3)
    alone, behind = opened(["abc"], 3), opened(["dddd", "abc"], 3)

    found = model.log_probabilities(symbols(behind), even(len(behind)))[-4:]

    np.testing.assert_array_equal(found, model.log_probabilities(symbols(alone), even(len(alone)))[-4:])
