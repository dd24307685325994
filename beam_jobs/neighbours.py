"""Candidate pairs: signatures within a Hamming distance, found by tables of blocks instead of all pairs."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from beam_jobs.simhash import Hashes

Pairs = NDArray[np.int64]

# Manku, Jain & Das Sarma (2007), section 3: cut 64 bits into blocks; signatures within k bits agree on all blocks that
# no differing bit falls into. With k + 2 blocks that is at least 2 of them: C(k + 2, 2) tables of 2 blocks each find
# every pair, and a table's key has 2 · 64 / (k + 2) bits, 12 or 13 for k = 8.
AGREEING_BLOCKS = 2

# What keeps a template that a million documents were made from, or one document sent a million times, from costing a
# million squared. Each limit is far above what unrelated documents reach.
MAX_ALIKE = 16  # of documents with one and the same signature, those after are compared with the first one only
MAX_RUN = 4_096  # within one key, signatures are sorted, and each is compared with this many of the next
MAX_CANDIDATES = 64  # pairs that a document enters with earlier ones, in each table


def tables(max_hamming: int) -> list[np.uint64]:
    """Bit masks of the tables that find every pair within `max_hamming` bits."""
    edges = np.linspace(0, 64, max_hamming + AGREEING_BLOCKS + 1).round().astype(int)
    blocks = [sum(1 << bit for bit in range(low, high)) for low, high in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(blocks, AGREEING_BLOCKS)]


def candidate_pairs(signatures: Hashes, mask: np.uint64, max_hamming: int) -> Pairs:
    """Pairs of row numbers int64 `[n, 2]` that agree under the mask and differ in at most `max_hamming` bits."""
    order = np.lexsort((signatures, signatures & mask))
    order, found = _thinned(order, signatures)
    ordered = signatures[order]
    keys = ordered & mask
    n_earlier = np.zeros(len(order), np.int32)
    left = np.arange(len(order))
    for step in range(1, MAX_RUN + 1):
        # Sorted by key: who has no partner at this distance has none further on.
        left = left[left + step < len(order)]
        left = left[keys[left] == keys[left + step]]
        if not len(left):
            break
        near = left[np.bitwise_count(ordered[left] ^ ordered[left + step]) <= max_hamming]
        later = np.where(order[near] > order[near + step], near, near + step)
        has_room = n_earlier[later] < MAX_CANDIDATES
        np.add.at(n_earlier, later[has_room], 1)
        near = near[has_room]
        found.append(np.stack([order[near], order[near + step]], axis=1))
    return np.concatenate(found)


def _thinned(order: NDArray[np.int64], signatures: Hashes) -> tuple[NDArray[np.int64], list[Pairs]]:
    """`order` without those beyond MAX_ALIKE of each signature, and the pairs of these with the first one of theirs.

    Equal signatures stand next to each other in `order`, in the order of their rows.
    """
    if not len(order):
        return order, [np.zeros((0, 2), np.int64)]
    ordered = signatures[order]
    places = np.arange(len(order))
    starts = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    first = np.maximum.accumulate(np.where(starts, places, 0))
    surplus = places - first >= MAX_ALIKE
    return order[~surplus], [np.stack([order[first[surplus]], order[surplus]], axis=1)]
