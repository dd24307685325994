"""Sorted 64-bit hashes with an index by their first bits: a look-up costs two reads of memory, not twenty."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beam_jobs.simhash import Hashes

Rows = NDArray[np.int64]


class KeyIndex:
    """`keys` are sorted, unique and evenly spread, as hashes are; then every second bucket holds one of them."""

    def __init__(self, keys: Hashes) -> None:
        self.keys = keys
        n_bits = max(1, len(keys).bit_length())
        self._shift = np.uint64(64 - n_bits)
        firsts = np.arange(1 << n_bits, dtype=np.uint64) << self._shift
        self._starts = np.append(np.searchsorted(keys, firsts), len(keys)).astype(np.int32)

    def find(self, wanted: Hashes) -> Rows:
        """Row of each of `wanted` int64 `[n]`, -1 for those that are not there."""
        found = np.full(len(wanted), -1, np.int64)
        bucket = (wanted >> self._shift).astype(np.int64)
        row, end = self._starts[bucket], self._starts[bucket + 1]
        asked = np.flatnonzero(row < end)
        row, end, left = row[asked], end[asked], wanted[asked]
        while len(asked):
            keys = self.keys[row]
            is_hit = keys == left
            found[asked[is_hit]] = row[is_hit]
            row = row + 1
            goes_on = (keys < left) & (row < end)  # sorted: a larger key ends the search
            asked, row, end, left = asked[goes_on], row[goes_on], end[goes_on], left[goes_on]
        return found
