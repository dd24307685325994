"""Candidate pairs: documents that share a run of words out of a small sample, and whose SimHash signatures are close.

Blocks of a 64-bit signature (Manku, Jain & Das Sarma 2007) find what differs in some 8 bits; documents of Jaccard
similarity 0.8 differ in up to 16, where blocks are too short to be of use. What brings documents together here is the
bottom sketch of their 5-word shingles (Broder 1997): the SKETCH smallest hashes. The smallest hash of two documents'
union is common to both with probability J, their Jaccard similarity, and so is each after it: with s of them, a pair is
missed with probability (1 - J)^s, 3e-4 at J = 0.8. The signatures then part what merely shares a phrase, at the price
of one population count, before anything is compared in full.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from beam_jobs.numbers import FIRST_FRESH, Numbers
from beam_jobs.simhash import Hashes, Shingles

Pairs: TypeAlias = NDArray[np.int64]
SKETCH = 5

# What keeps a template that a million documents were made from, or one document sent a million times, from costing a
# million squared. Each limit is far above what unrelated documents reach.
MAX_ALIKE = 16  # of documents with one key and signature, those after are compared with the first one only
MAX_RUN = 4_096  # within one key, signatures are sorted, and each is compared with this many of the next
MAX_CANDIDATES = 64  # pairs that a document enters with earlier ones, by each key


class Entries(NamedTuple):
    """What documents are found by, an entry for each of a document's keys: parallel arrays `[n]`."""

    keys: Shingles
    numbers: Numbers
    signatures: Hashes

    def only(self, chosen: NDArray[np.bool_]) -> Entries:
        return Entries(self.keys[chosen], self.numbers[chosen], self.signatures[chosen])


def sketch(shingles: Shingles) -> Shingles:
    """A document's keys: the smallest of its sorted shingles."""
    return shingles[:SKETCH]


def candidate_pairs(entries: Entries, max_hamming: int) -> Pairs:
    """Pairs `(earlier, later)` of document numbers int64 `[n, 2]` that share a key and differ in at most `max_hamming`
    bits, unless both are history. A pair that shares several keys comes several times.
    """
    order = np.lexsort((entries.numbers, entries.signatures, entries.keys))
    keys, numbers, signatures = entries.keys[order], entries.numbers[order], entries.signatures[order]
    surplus, first = _surplus(keys, signatures)
    found = [np.stack([numbers[first[surplus]], numbers[surplus]], axis=1)]
    keys, numbers, signatures = keys[~surplus], numbers[~surplus], signatures[~surplus]
    n_earlier = np.zeros(len(keys), np.int32)
    left = np.arange(len(keys))
    for step in range(1, MAX_RUN + 1):
        # Sorted by key: who has no partner at this distance has none further on.
        left = left[left + step < len(keys)]
        left = left[keys[left] == keys[left + step]]
        if not len(left):
            break
        near = left[np.bitwise_count(signatures[left] ^ signatures[left + step]) <= max_hamming]
        near = near[np.maximum(numbers[near], numbers[near + step]) >= FIRST_FRESH]
        later = np.where(numbers[near] > numbers[near + step], near, near + step)
        has_room = n_earlier[later] < MAX_CANDIDATES
        np.add.at(n_earlier, later[has_room], 1)
        near = near[has_room]
        found.append(np.sort(np.stack([numbers[near], numbers[near + step]], axis=1), axis=1))
    pairs: Pairs = np.concatenate(found)
    chosen: Pairs = pairs[(pairs[:, 1] >= FIRST_FRESH) & (pairs[:, 0] != pairs[:, 1])]
    return chosen


def unique_pairs(pairs: Pairs) -> Pairs:
    """Sorted, each once."""
    ordered = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    is_first = np.ones(len(ordered), bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return ordered[is_first]


def _surplus(keys: Shingles, signatures: Hashes) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which places are beyond MAX_ALIKE of their key and signature, and the place of the first one of these.

    Equal ones stand next to each other, in the order of their numbers.
    """
    places = np.arange(len(keys))
    is_first = np.ones(len(keys), bool)
    is_first[1:] = (keys[1:] != keys[:-1]) | (signatures[1:] != signatures[:-1])
    first = np.maximum.accumulate(np.where(is_first, places, 0)) if len(keys) else places
    return places - first >= MAX_ALIKE, first
