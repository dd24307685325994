"""Which documents to drop: exact duplicates, and near ones whose true Jaccard similarity was verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from beam_jobs.neighbours import Pairs
from beam_jobs.numbers import FIRST_FRESH, Numbers
from beam_jobs.simhash import Hashes
from beam_jobs.verify import Identity, Verified


@dataclass(frozen=True)
class Duplicate:
    """A dropped document's reason, the one that is kept instead, and their similarity in [0, 1]."""

    reason: str
    kept: int
    identity: Identity
    similarity: float


def first_copies(exact: Hashes, numbers: Numbers) -> Pairs:
    """`(first one with the same exact hash, document)` for all but the first ones and history: int64 `[n, 2]`."""
    order = np.lexsort((numbers, exact))
    exact, numbers = exact[order], numbers[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = exact[1:] != exact[:-1]
    firsts = numbers[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))] if len(order) else numbers
    copies = ~is_first & (numbers >= FIRST_FRESH)
    return np.stack([firsts[copies], numbers[copies]], axis=1)


def decide(
    found: Iterable[Verified], min_jaccard: float, similarity: Callable[[int, int], float]
) -> dict[int, Duplicate]:
    """Drop every document that duplicates an earlier kept one. Returns the dropped ones, by number.

    A near-duplicate is dropped only when it is similar to a document that is itself kept: each drop names one that is
    at least `min_jaccard` alike, which a chain of transitive matches would not guarantee. Where all that it is like
    are dropped, what is kept instead of them is compared, by `similarity`. Of several, the most similar one is named;
    of equals, the one that came first.
    """
    dropped: dict[int, Duplicate] = {}
    for later, group in groupby(_in_order(found), key=lambda edge: edge[0]):
        edges = list(group)
        copy_of = next((edge for edge in edges if edge[2]), None)
        if copy_of is not None:
            _, first, _, _, identity = copy_of
            # The first copy may itself be near something older: then that is the one which is kept.
            kept_instead = dropped.get(first, Duplicate("", first, identity, 1.0))
            dropped[later] = replace(kept_instead, reason="exact_duplicate")
            continue
        alike = {earlier: (how_much, identity) for _, earlier, _, how_much, identity in edges if earlier not in dropped}
        if not alike:
            instead = {dropped[edge[1]].kept: dropped[edge[1]].identity for edge in edges}
            alike = {kept: (similarity(later, kept), identity) for kept, identity in instead.items()}
        kept = max(alike, key=lambda number: (alike[number][0], -number))
        if alike[kept][0] >= min_jaccard:
            dropped[later] = Duplicate("near_duplicate", kept, alike[kept][1], alike[kept][0])
    return dropped


def _in_order(found: Iterable[Verified]) -> list[tuple[int, int, bool, float, Identity]]:
    """`(later, earlier, is a copy, similarity, the earlier one's identity)`, sorted."""
    edges = [
        edge
        for each in found
        for edge in zip(
            each.later.tolist(),
            each.earlier.tolist(),
            each.is_copy.tolist(),
            each.similarity.tolist(),
            each.identity,
            strict=True,
        )
    ]
    return sorted(edges)
