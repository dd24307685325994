"""Which duplicates are dropped: each names a kept document that is alike enough; history stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.dedup import Duplicate, decide, first_copies
from beam_jobs.neighbours import Pairs
from beam_jobs.simhash import Shingles, jaccard

NO_PAIRS = np.zeros((0, 2), np.int64)


def of(*sets: set[int]) -> list[Shingles]:
    return [np.array(sorted(each), np.uint32) for each in sets]


def all_pairs(n: int) -> Pairs:
    return np.array([(a, b) for b in range(n) for a in range(b)], np.int64).reshape(-1, 2)


def decided(documents: list[Shingles], pairs: Pairs, n_history: int = 0, **first_of: int) -> dict[int, Duplicate]:
    copies = {int(name.removeprefix("d")): first for name, first in first_of.items()}
    return decide(pairs, copies, documents.__getitem__, n_history, 0.8)


def test_a_near_duplicate_names_the_kept_one_and_how_alike_they_are() -> None:
    documents = of({1, 2, 3, 4, 5, 6, 7, 8, 9}, {20, 21}, {1, 2, 3, 4, 5, 6, 7, 8, 10})
    assert decided(documents, all_pairs(3)) == {2: Duplicate("near_duplicate", 0, 0.8)}


def test_candidates_that_are_not_alike_are_both_kept() -> None:
    assert decided(of({1, 2, 3, 4}, {1, 2, 3, 5}), all_pairs(2)) == {}


def test_the_order_within_a_pair_does_not_matter() -> None:
    documents = of({1, 2}, {1, 2})
    assert decided(documents, np.array([[1, 0]])) == decided(documents, np.array([[0, 1], [1, 0], [1, 1]]))


def test_the_most_similar_of_several_is_named() -> None:
    base = set(range(100))
    documents = of(base | {200, 201, 202}, base | {300}, base)
    found = decided(documents, np.array([[0, 2], [1, 2]]))
    assert found[2].kept == 1


def test_a_chain_keeps_what_is_not_like_any_kept_one() -> None:
    # Each is 0.8 like the one before, and less like the first.
    documents = of(set(range(9)), set(range(1, 10)), set(range(2, 11)))
    assert jaccard(documents[0], documents[2]) < 0.8
    assert decided(documents, all_pairs(3)) == {1: Duplicate("near_duplicate", 0, 0.8)}


def test_of_a_dropped_candidate_the_one_kept_instead_is_looked_at() -> None:
    documents = of({1, 2, 3, 4}, {1, 2, 3, 4}, {1, 2, 3, 4})
    assert decided(documents, np.array([[0, 1], [1, 2]]))[2] == Duplicate("near_duplicate", 0, 1.0)


def test_history_is_never_dropped() -> None:
    documents = of({1, 2}, {1, 2}, {1, 2})
    assert decided(documents, all_pairs(3), n_history=2) == {2: Duplicate("near_duplicate", 0, 1.0)}
    assert decided(documents, NO_PAIRS, n_history=2, d1=0, d2=0) == {2: Duplicate("exact_duplicate", 0, 1.0)}


def test_an_exact_copy_names_the_first() -> None:
    documents = of({1}, {2}, {1}, {1})
    assert decided(documents, NO_PAIRS, d2=0, d3=0) == {
        2: Duplicate("exact_duplicate", 0, 1.0),
        3: Duplicate("exact_duplicate", 0, 1.0),
    }


def test_a_copy_of_a_dropped_one_names_what_is_kept() -> None:
    base = set(range(9))
    documents = of(base, base - {0} | {9}, base - {0} | {9})
    assert decided(documents, np.array([[0, 1]]), d2=1) == {
        1: Duplicate("near_duplicate", 0, 0.8),
        2: Duplicate("exact_duplicate", 0, 0.8),
    }


def test_first_copies() -> None:
    exact = np.array([5, 7, 5, 9, 7, 5], np.uint64)
    assert {tuple(pair) for pair in first_copies(exact).tolist()} == {(2, 0), (5, 0), (4, 1)}
    assert first_copies(np.zeros(0, np.uint64)).shape == (0, 2)


_DOCUMENTS = st.lists(st.sets(st.integers(0, 12), min_size=1, max_size=10), min_size=1, max_size=14)


@given(_DOCUMENTS, st.integers(0, 5), st.floats(0.3, 1.0), st.data())
def test_what_always_holds(sets: list[set[int]], n_history: int, min_jaccard: float, data: st.DataObject) -> None:
    documents, n_history = of(*sets), min(n_history, len(sets))
    every = all_pairs(len(documents))
    some = np.array(data.draw(st.lists(st.booleans(), min_size=len(every), max_size=len(every))), bool)
    exact = np.array([hash(frozenset(each)) & 0xFFFF for each in sets], np.uint64)
    first_of = dict(first_copies(exact).tolist())

    found = decide(every[some], first_of, documents.__getitem__, n_history, min_jaccard)

    assert all(number >= n_history for number in found)
    for number, duplicate in found.items():
        assert duplicate.kept < number
        assert duplicate.kept not in found
        assert duplicate.similarity >= min_jaccard
        assert jaccard(documents[number], documents[duplicate.kept]) == pytest.approx(duplicate.similarity)
    assert {number for number in first_of if number >= n_history} <= set(found)
    kept = [number for number in range(len(documents)) if number not in found]
    for a, b in every[some].tolist():
        both_kept = a in kept and b in kept and b >= n_history
        assert not (both_kept and jaccard(documents[a], documents[b]) >= min_jaccard)
    shuffled = every[some][::-1, ::-1]
    assert decide(shuffled, first_of, documents.__getitem__, n_history, min_jaccard) == found
