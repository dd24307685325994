"""Which documents to drop: exact duplicates, and near ones that a true Jaccard similarity confirms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from beam_jobs.neighbours import Pairs
from beam_jobs.simhash import Hashes, Shingles, jaccard


@dataclass(frozen=True)
class Duplicate:
    """A dropped document's reason, the document that is kept instead, and their similarity in [0, 1]."""

    reason: str
    kept: int
    similarity: float


def first_copies(exact: Hashes) -> Pairs:
    """`(document, the first one with the same exact hash)` for all but the first ones: int64 `[n_copies, 2]`."""
    order = np.argsort(exact, kind="stable")
    if not len(order):
        return np.zeros((0, 2), np.int64)
    starts = np.concatenate([[True], exact[order][1:] != exact[order][:-1]])
    firsts = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    return np.stack([order[~starts], firsts[~starts]], axis=1)


def decide(
    pairs: Pairs,
    first_of: Mapping[int, int],
    shingles: Callable[[int], Shingles],
    n_history: int,
    min_jaccard: float,
) -> dict[int, Duplicate]:
    """Drop every document that duplicates an earlier kept one. Returns the dropped ones.

    Documents are numbered in order of arrival, history first: numbers below `n_history` are never dropped.
    `pairs` are candidates; `first_of` maps a document to the first one with the same words. A near-duplicate is dropped
    only when it is similar to a document that is itself kept: each drop names one that is at least `min_jaccard` alike,
    which a chain of transitive matches would not guarantee. Of a candidate that is dropped, the one kept instead is
    looked at.
    """
    copies = {number: first for number, first in first_of.items() if number >= n_history}
    dropped: dict[int, Duplicate] = {}

    def kept_instead_of(number: int) -> int:
        original = copies.get(number, number)
        return dropped[original].kept if original in dropped else original

    for number, earlier in _earlier_candidates(pairs, n_history):
        if number in copies:
            continue
        candidates = {kept_instead_of(other) for other in earlier}
        # The most similar one; of equals, the one that came first.
        similarity, negative = max((jaccard(shingles(number), shingles(other)), -other) for other in candidates)
        if similarity >= min_jaccard:
            dropped[number] = Duplicate("near_duplicate", -negative, similarity)
    for number, first in copies.items():
        # The first copy may itself be near something older: then that is the one which is kept.
        older = dropped.get(first)
        dropped[number] = Duplicate(
            "exact_duplicate", older.kept if older else first, older.similarity if older else 1.0
        )
    return dropped


def _earlier_candidates(pairs: Pairs, n_history: int) -> Iterator[tuple[int, list[int]]]:
    """`(document, its earlier candidates)` in order, without documents of history, each pair once."""
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    wanted = (high >= n_history) & (low != high)
    ordered = np.unique(np.stack([high[wanted], low[wanted]], axis=1), axis=0)
    numbers, starts = np.unique(ordered[:, 0], return_index=True)
    groups = np.split(ordered[:, 1], starts[1:]) if len(numbers) else []
    yield from zip(numbers.tolist(), (group.tolist() for group in groups), strict=True)
