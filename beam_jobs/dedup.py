"""Which documents to drop: exact duplicates, and near ones that a true Jaccard similarity confirms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from beam_jobs.simhash import Hashes, jaccard


@dataclass(frozen=True)
class Duplicate:
    """A dropped document's reason, the document that is kept instead, and their similarity in [0, 1]."""

    reason: str
    kept: int
    similarity: float


def decide(
    pairs: Iterable[tuple[int, int]],
    exact: Mapping[int, int],
    shingles: Callable[[int], Hashes],
    n_history: int,
    min_jaccard: float,
) -> dict[int, Duplicate]:
    """Drop every document that duplicates an earlier kept one. Returns the dropped ones.

    Documents are numbered in order of arrival, history first: numbers below `n_history` are never dropped.
    `pairs` are candidates; `exact` maps a document to the first one with the same words. A near-duplicate is dropped
    only when it is similar to a document that is itself kept: each drop names one that is at least `min_jaccard` alike,
    which a chain of transitive matches would not guarantee.
    """
    copies = {number: first for number, first in exact.items() if number >= n_history}
    dropped: dict[int, Duplicate] = {}
    earlier: dict[int, set[int]] = {}
    for a, b in pairs:
        low, high = (a, b) if a < b else (b, a)
        if high >= n_history and low != high:
            earlier.setdefault(high, set()).add(low)
    for number in sorted(earlier):
        if number in copies:
            continue
        kept = [other for other in earlier[number] if other not in dropped and other not in copies]
        scored = [(jaccard(shingles(number), shingles(other)), -other) for other in kept]
        similarity, negative = max(scored, default=(0.0, 0))
        if similarity >= min_jaccard:
            dropped[number] = Duplicate("near_duplicate", -negative, similarity)
    for number, first in copies.items():
        # The first copy may itself be near something older: then that is the one which is kept.
        older = dropped.get(first)
        dropped[number] = Duplicate(
            "exact_duplicate", older.kept if older else first, older.similarity if older else 1.0
        )
    return dropped
