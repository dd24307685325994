"""Candidate pairs: signatures within a Hamming distance, found by tables of blocks instead of all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from beam_jobs.simhash import Hashes

# Manku, Jain & Das Sarma (2007), section 3: cut 64 bits into blocks; signatures within k bits agree on all blocks that
# no differing bit falls into. With k + 2 blocks that is at least 2 of them: C(k + 2, 2) tables of 2 blocks each find
# every pair, and a table's key has 2 · 64 / (k + 2) bits, 12 or 13 for k = 8.
AGREEING_BLOCKS = 2

# Within one key, signatures are sorted; each is compared with this many of the next. A longer run means thousands of
# documents that share 13 bits: those nearest in the order are compared, so the cost stays linear.
MAX_RUN = 4_096


def tables(max_hamming: int) -> list[np.uint64]:
    """Bit masks of the tables that find every pair within `max_hamming` bits."""
    edges = np.linspace(0, 64, max_hamming + AGREEING_BLOCKS + 1).round().astype(int)
    blocks = [sum(1 << bit for bit in range(low, high)) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    return [np.uint64(sum(chosen)) for chosen in combinations(blocks, AGREEING_BLOCKS)]


def candidate_pairs(signatures: Hashes, mask: np.uint64, max_hamming: int) -> NDArray[np.int64]:
    """Pairs of row numbers int64 `[n, 2]` that agree under the mask and differ in at most `max_hamming` bits."""
    order = np.lexsort((signatures, signatures & mask))
    ordered, keys = signatures[order], (signatures & mask)[order]
    found = []
    for step in range(1, min(MAX_RUN, len(ordered) - 1) + 1):
        same = np.flatnonzero(keys[step:] == keys[:-step])
        if not len(same):
            break
        near = same[np.bitwise_count(ordered[same] ^ ordered[same + step]) <= max_hamming]
        if len(near):
            found.append(np.stack([order[near], order[near + step]], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)
