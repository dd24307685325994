"""Which duplicates are dropped: each names a kept document that is alike enough; history stays."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.dedup import Duplicate, decide, first_copies
from beam_jobs.neighbours import Pairs
from beam_jobs.numbers import FIRST_FRESH
from beam_jobs.simhash import Shingles, jaccard
from beam_jobs.verify import Identity, Verified

NO_PAIRS = np.zeros((0, 2), np.int64)


def of(*sets: set[int]) -> list[Shingles]:
    return [np.array(sorted(each), np.uint32) for each in sets]


def all_pairs(n: int) -> Pairs:
    return np.array([(a, b) for b in range(n) for a in range(b)], np.int64).reshape(-1, 2)


def named(place: int) -> Identity:
    return Identity(f"d{place}", f"place {place}")


def decided(
    documents: list[Shingles], pairs: Pairs, n_history: int = 0, min_jaccard: float = 0.8, **first_of: int
) -> dict[int, Duplicate]:
    """`decide` with the places of a list as numbers: of pairs and copies only what its caller would hand on."""
    numbers = [place if place < n_history else FIRST_FRESH + place for place in range(len(documents))]
    at = {number: place for place, number in enumerate(numbers)}
    copies = {int(name.removeprefix("d")): first for name, first in first_of.items()}

    def alike(a: int, b: int) -> float:
        return jaccard(documents[at[a]], documents[at[b]])

    edges = [(later, first, 1.0, True) for later, first in copies.items() if later >= n_history]
    for a, b in pairs.tolist():
        earlier, later = min(a, b), max(a, b)
        if later >= n_history and later not in copies and a != b:
            similarity = jaccard(documents[earlier], documents[later])
            if similarity >= min_jaccard:
                edges.append((later, earlier, similarity, False))
    verified = [
        Verified(
            later=np.array([numbers[edge[0]] for edge in some], np.int64),
            earlier=np.array([numbers[edge[1]] for edge in some], np.int64),
            similarity=np.array([edge[2] for edge in some], np.float64),
            is_copy=np.array([edge[3] for edge in some], bool),
            identity=[named(edge[1]) for edge in some],
        )
        for some in (edges[::2], edges[1::2])  # from several sources
    ]
    found = decide(verified, min_jaccard, alike)
    return {at[number]: dataclasses.replace(each, kept=at[each.kept]) for number, each in found.items()}


def near(kept: int, similarity: float) -> Duplicate:
    return Duplicate("near_duplicate", kept, named(kept), similarity)


def exact(kept: int, similarity: float = 1.0) -> Duplicate:
    return Duplicate("exact_duplicate", kept, named(kept), similarity)


def test_a_near_duplicate_names_the_kept_one_and_how_alike_they_are() -> None:
    documents = of({1, 2, 3, 4, 5, 6, 7, 8, 9}, {20, 21}, {1, 2, 3, 4, 5, 6, 7, 8, 10})
    assert decided(documents, all_pairs(3)) == {2: near(0, 0.8)}


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
    assert decided(documents, all_pairs(3)) == {1: near(0, 0.8)}


def test_of_a_dropped_candidate_the_one_kept_instead_is_looked_at() -> None:
    documents = of({1, 2, 3, 4}, {1, 2, 3, 4}, {1, 2, 3, 4})
    assert decided(documents, np.array([[0, 1], [1, 2]]))[2] == near(0, 1.0)


def test_history_is_never_dropped() -> None:
    documents = of({1, 2}, {1, 2}, {1, 2})
    assert decided(documents, all_pairs(3), n_history=2) == {2: near(0, 1.0)}
    assert decided(documents, NO_PAIRS, n_history=2, d1=0, d2=0) == {2: exact(0, 1.0)}


def test_an_exact_copy_names_the_first() -> None:
    documents = of({1}, {2}, {1}, {1})
    assert decided(documents, NO_PAIRS, d2=0, d3=0) == {
        2: exact(0, 1.0),
        3: exact(0, 1.0),
    }


def test_a_copy_of_a_dropped_one_names_what_is_kept() -> None:
    base = set(range(9))
    documents = of(base, base - {0} | {9}, base - {0} | {9})
    assert decided(documents, np.array([[0, 1]]), d2=1) == {
        1: near(0, 0.8),
        2: exact(0, 0.8),
    }


def test_first_copies() -> None:
    hashes, numbers = np.array([5, 7, 5, 9, 7, 5], np.uint64), FIRST_FRESH + np.array([3, 0, 1, 2, 4, 5])
    found = first_copies(hashes, numbers) - FIRST_FRESH
    assert {tuple(pair) for pair in found.tolist()} == {(1, 3), (1, 5), (0, 4)}
    of_history = first_copies(hashes, np.array([10, 11, 12, 13, FIRST_FRESH, FIRST_FRESH + 1]))
    assert {tuple(pair) for pair in of_history.tolist()} == {(10, FIRST_FRESH + 1), (11, FIRST_FRESH)}
    assert first_copies(np.zeros(0, np.uint64), np.zeros(0, np.int64)).shape == (0, 2)


_DOCUMENTS = st.lists(st.sets(st.integers(0, 12), min_size=1, max_size=10), min_size=1, max_size=14)


@given(_DOCUMENTS, st.integers(0, 5), st.floats(0.3, 1.0), st.data())
def test_what_always_holds(sets: list[set[int]], n_history: int, min_jaccard: float, data: st.DataObject) -> None:
    documents, n_history = of(*sets), min(n_history, len(sets))
    every = all_pairs(len(documents))
    some = every[np.array(data.draw(st.lists(st.booleans(), min_size=len(every), max_size=len(every))), bool)]
    first_of: dict[str, int] = {}
    for place, each in enumerate(sets):
        if (first := sets.index(each)) < place:
            first_of[f"d{place}"] = first

    found = decided(documents, some, n_history, min_jaccard, **first_of)

    assert all(number >= n_history for number in found)
    for number, duplicate in found.items():
        assert duplicate.kept < number
        assert duplicate.kept not in found
        assert duplicate.identity == named(duplicate.kept)
        assert duplicate.similarity >= min_jaccard
        assert jaccard(documents[number], documents[duplicate.kept]) == pytest.approx(duplicate.similarity)
    copies = {int(name.removeprefix("d")) for name in first_of}
    assert {number for number in copies if number >= n_history} <= set(found)
    kept = [number for number in range(len(documents)) if number not in found]
    for a, b in some.tolist():
        both_kept = a in kept and b in kept and b >= n_history
        assert not (both_kept and jaccard(documents[a], documents[b]) >= min_jaccard)
    assert decided(documents, some[::-1, ::-1], n_history, min_jaccard, **first_of) == found
