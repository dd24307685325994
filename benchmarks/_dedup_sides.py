"""Near-duplicates of a list of texts, found by us and by datasketch: the same texts, one process, the pairs and the time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from beam_jobs.dedup import decide, first_copies
from beam_jobs.neighbours import Entries, Pairs, candidate_pairs, sketch
from beam_jobs.numbers import fresh_source, numbers_of, rows_of
from beam_jobs.simhash import Fingerprint, fingerprint
from beam_jobs.verify import Documents, verify
from benchmarks._exact_jaccard import shingles
from lake.recipe import PrepareRules

N_PERMUTATIONS = 128
_SOURCE = fresh_source(0, 0)
_NO_PAIRS = np.zeros((0, 2), np.int64)


class Found(NamedTuple):
    """Pairs `(earlier, later)` of places in the list, and processor time by step, in seconds."""

    pairs: NDArray[np.int64]
    cpu_s: dict[str, float]


def ours(texts: Sequence[str], max_hamming: int, min_jaccard: float) -> Found:
    """Fingerprint, candidates, verification: what the job's steps call, on arrays as the job has them."""
    watch = _Watch()
    hashed = [fingerprint(text) for text in texts]
    watch.took("fingerprint")
    candidates = _candidates(hashed, max_hamming)
    watch.took("candidates")
    found = verify(candidates, _NO_PAIRS, _documents(hashed), min_jaccard)
    watch.took("verification")
    return Found(rows_of(np.stack([found.earlier, found.later], axis=1)), watch.cpu_s)


def kept(texts: Sequence[str], rules: PrepareRules) -> list[int]:
    """Places of the texts that deduplication keeps: all of it, exact copies too, and no more than it."""
    hashed = [fingerprint(text) for text in texts]
    documents = _documents(hashed)
    copies = first_copies(np.array([each.exact for each in hashed], np.uint64), numbers_of(_SOURCE, len(hashed)))
    alike = verify(_candidates(hashed, rules.max_hamming), copies, documents, rules.min_jaccard)
    dropped = decide([alike], rules.min_jaccard, documents.similarity)
    return [row for row, number in enumerate(numbers_of(_SOURCE, len(texts)).tolist()) if number not in dropped]


def _candidates(hashed: Sequence[Fingerprint], max_hamming: int) -> Pairs:
    keys = [sketch(each.shingles) for each in hashed]
    rows = np.repeat(np.arange(len(hashed)), [len(each) for each in keys])
    signatures = np.array([each.signature for each in hashed], np.uint64)
    entries = Entries(np.concatenate(keys), numbers_of(_SOURCE, len(hashed))[rows], signatures[rows])
    pairs: Pairs = np.unique(candidate_pairs(entries, max_hamming), axis=0)
    return pairs


def _documents(hashed: Sequence[Fingerprint]) -> Documents:
    offsets = np.cumsum([0] + [len(each.shingles) for each in hashed], dtype=np.int32)
    shingles = pa.ListArray.from_arrays(offsets, np.concatenate([each.shingles for each in hashed]))
    names = pa.array([str(number) for number in range(len(hashed))])
    table = pa.table({"id": names, "place_id": names, "shingles": shingles})
    return Documents(lambda _: table)


def datasketch(texts: Sequence[str], min_jaccard: float, bands: tuple[int, int] | None = None) -> tuple[Found, Found]:
    """MinHash of the same shingles and LSH, as its documentation has it: the pairs that its estimate confirms, and all
    that its index returns.

    `bands` are `(bands, rows)` of the index; by default it chooses them for the threshold.
    """
    watch = _Watch()
    sketches = []
    for text in texts:
        each = MinHash(num_perm=N_PERMUTATIONS)
        each.update_batch([" ".join(shingle).encode() for shingle in shingles(text)])
        sketches.append(each)
    watch.took("fingerprint")
    index = MinHashLSH(threshold=min_jaccard, num_perm=N_PERMUTATIONS, params=bands)
    candidates = []
    for number, each in enumerate(sketches):
        candidates += [(earlier, number) for earlier in index.query(each)]
        index.insert(number, each)
    watch.took("candidates")
    confirmed = [pair for pair in candidates if sketches[pair[0]].jaccard(sketches[pair[1]]) >= min_jaccard]
    watch.took("verification")
    return Found(_array(confirmed), watch.cpu_s), Found(_array(candidates), watch.cpu_s)


class _Watch:
    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}
        self._since = time.process_time()

    def took(self, step: str) -> None:
        now = time.process_time()
        self.cpu_s[step] = now - self._since
        self._since = now


def _array(pairs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    return np.array(pairs, np.int64).reshape(-1, 2)
