"""Candidate pairs: what shares a key and is close is found, hot keys cost no square, and similar texts meet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs import neighbours
from beam_jobs.neighbours import MAX_ALIKE, SKETCH, Entries, candidate_pairs, sketch
from beam_jobs.numbers import FIRST_FRESH
from beam_jobs.simhash import fingerprint, jaccard
from tests.documents import document, edited


def entries(rows: list[tuple[int, int, int]]) -> Entries:
    """`(key, number, signature)`"""
    keys, numbers, signatures = zip(*rows, strict=True) if rows else ((), (), ())
    return Entries(np.array(keys, np.uint32), np.array(numbers, np.int64), np.array(signatures, np.uint64))


def found(rows: list[tuple[int, int, int]], max_hamming: int = 3) -> set[tuple[int, int]]:
    return {(a, b) for a, b in candidate_pairs(entries(rows), max_hamming).tolist()}


def new(place: int) -> int:
    return FIRST_FRESH + place


def test_who_shares_a_key_and_is_close_is_a_candidate() -> None:
    rows = [(1, new(0), 0b0), (1, new(1), 0b111), (1, new(2), 0b1111), (2, new(3), 0b0), (2, new(4), 0b1)]
    assert found(rows) == {(new(0), new(1)), (new(1), new(2)), (new(3), new(4))}


def test_history_is_not_compared_with_itself() -> None:
    rows = [(1, 5, 0), (1, 6, 0), (1, new(0), 0)]
    assert found(rows) == {(5, new(0)), (6, new(0))}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 63)), max_size=30),
    st.integers(0, 6),
    st.integers(0, 9),
)
def test_exactly_the_pairs_of_a_double_loop(rows: list[tuple[int, int, int]], max_hamming: int, n_old: int) -> None:
    told = {number: signature for _, number, signature in rows}  # a document has one signature
    rows = [(key, number if number < n_old else new(number), told[number]) for key, number, _ in dict.fromkeys(rows)]
    expected = {
        (min(a, b), max(a, b))
        for key, a, left in rows
        for other, b, right in rows
        if key == other and a != b and (left ^ right).bit_count() <= max_hamming and max(a, b) >= FIRST_FRESH
    }
    assert found(rows, max_hamming) == expected


def test_one_text_a_hundred_thousand_times_is_linear() -> None:
    n = 100_000
    same = Entries(np.full(n, 7, np.uint32), FIRST_FRESH + np.arange(n), np.full(n, 12345, np.uint64))
    pairs = candidate_pairs(same, 8) - FIRST_FRESH
    assert len(pairs) < 2 * n
    assert set(pairs[:, 1].tolist()) == set(range(1, n))  # and yet each is compared with an earlier one
    assert set(pairs[pairs[:, 1] >= MAX_ALIKE][:, 0].tolist()) == {0}


def test_ten_thousand_near_ones_of_one_key_are_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MAX_CANDIDATES", 8)
    monkeypatch.setattr(neighbours, "MAX_RUN", 64)
    n = 10_000
    signatures = np.uint64(1) << np.random.default_rng(0).integers(0, 64, n).astype(np.uint64)
    pairs = candidate_pairs(Entries(np.full(n, 7, np.uint32), FIRST_FRESH + np.arange(n), signatures), 2)
    assert n < len(pairs) <= n * (8 + 2)


def test_the_sketch_is_the_smallest_shingles() -> None:
    shingles = fingerprint(document(1)).shingles
    assert sketch(shingles).tolist() == sorted(shingles.tolist())[:SKETCH]
    assert len(sketch(fingerprint("two words").shingles)) == 1


def test_nearly_all_that_are_alike_become_candidates() -> None:
    """Edited copies of Jaccard 0.8 and more: missed by the sketch once in 3,000, by their signatures as seldom."""
    prints = [
        fingerprint(text)
        for n in range(400)
        for text in (document(n), edited(document(n, 30), seed=n), document(n, 30))
    ]
    alike = {
        (a, b)
        for a in range(len(prints))
        for b in range(a + 1, min(a + 3, len(prints)))
        if jaccard(prints[a].shingles, prints[b].shingles) >= 0.8
    }
    assert len(alike) > 300
    rows = [
        (key, new(place), each.signature) for place, each in enumerate(prints) for key in sketch(each.shingles).tolist()
    ]
    pairs = {(a - FIRST_FRESH, b - FIRST_FRESH) for a, b in found(rows, 18)}
    assert len(alike - pairs) <= 1


def test_none_and_one() -> None:
    assert candidate_pairs(entries([]), 3).shape == (0, 2)
    assert candidate_pairs(entries([(1, new(0), 5)]), 3).shape == (0, 2)
