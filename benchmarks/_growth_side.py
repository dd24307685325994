"""One size of the index, in a process of its own: `python -m benchmarks._growth_side N_HISTORY N_NEW`; prints JSON.

Documents are synthetic: random signatures and keys, as those of unrelated texts are, and a share of the new ones near
an older one. History comes file by file, as in the job. Time is the processor's, of finding candidates alone; memory
is the process' largest, less what it had before there were documents.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import numpy as np

from beam_jobs.neighbours import SKETCH, Entries, candidate_pairs
from beam_jobs.numbers import fresh_source, numbers_of
from beam_jobs.steps import PARTITIONS, among
from benchmarks._memory import peak_bytes
from lake.recipe import PrepareRules

NEAR_SHARE = 0.2
FILE_DOCUMENTS = 1 << 16
_FLIPPED_BITS = 6


def measure(n_history: int, n_new: int) -> dict[str, float]:
    """Candidates of `n_new` documents with each other and with `n_history` earlier ones."""
    before = peak_bytes()
    new = _together(*_files(n_new, fresh_source(0, 0)))
    oldest = next(_files(n_history, 0)) if n_history else new
    n_planted = _plant(new, oldest, int(NEAR_SHARE * min(n_new, FILE_DOCUMENTS)))
    started = time.process_time()
    wanted = np.unique(new.keys)
    cpu_s, shared = time.process_time() - started, []
    for file in _files(n_history, 0):
        started = time.process_time()
        shared.append(file.only(among(file.keys, wanted)))
        cpu_s += time.process_time() - started
    started = time.process_time()
    n_pairs = 0
    for partition in range(PARTITIONS):
        met = _together(*(each.only(each.keys % PARTITIONS == partition) for each in (*shared, new)))
        n_pairs += len(np.unique(candidate_pairs(met, PrepareRules().max_hamming), axis=0))
    cpu_s += time.process_time() - started
    if n_pairs < n_planted:
        raise AssertionError(f"{n_pairs} pairs, expected the {n_planted} planted ones at least")
    return {"cpu_s": cpu_s, "bytes": peak_bytes() - before}


def _files(n: int, first_source: int) -> Iterator[Entries]:
    """Random documents, SKETCH entries each, up to FILE_DOCUMENTS at a time; the same each time."""
    for place, start in enumerate(range(0, n, FILE_DOCUMENTS)):
        size = min(FILE_DOCUMENTS, n - start)
        draw = np.random.default_rng(first_source + place)
        # The smallest of some 200 hashes of 32 bits: one further on lies about 2**24 above.
        keys = draw.integers(0, 1 << 27, (size, SKETCH), np.uint32) + (np.arange(SKETCH, dtype=np.uint32) << 24)
        numbers, signatures = numbers_of(first_source + place, size), draw.integers(0, 1 << 64, size, np.uint64)
        yield Entries(keys.ravel(), np.repeat(numbers, SKETCH), np.repeat(signatures, SKETCH))


def _plant(new: Entries, old: Entries, n: int) -> int:
    """Make the last `n` new documents near the first of `old`: all keys, all but a few bits. Returns how many."""
    n = min(n, len(old.keys) // SKETCH, len(new.keys) // (2 * SKETCH))
    draw = np.random.default_rng(0)
    flipped = np.zeros(n, np.uint64)
    for _ in range(_FLIPPED_BITS):
        flipped |= np.uint64(1) << draw.integers(0, 64, n, np.uint64)
    copied = slice(len(new.keys) - n * SKETCH, None)
    new.keys[copied] = old.keys[: n * SKETCH]
    new.signatures[copied] = old.signatures[: n * SKETCH] ^ np.repeat(flipped, SKETCH)
    return n


def _together(*found: Entries) -> Entries:
    return Entries(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
