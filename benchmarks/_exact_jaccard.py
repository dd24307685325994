"""All pairs of texts with their exact Jaccard similarity, by brute force and by nobody's hashes but Python's own sets.

Nothing of `beam_jobs` is in here: it is what both sides are judged by.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

SHINGLE_WORDS = 5
_ROWS_AT_ONCE = 256
_WORD = re.compile(r"\w+")


def words_of(text: str) -> tuple[str, ...]:
    """Lower-cased: case, punctuation and spacing do not matter."""
    return tuple(_WORD.findall(text.lower()))


def shingles(text: str) -> set[tuple[str, ...]]:
    """The runs of 5 words; a shorter text is one run."""
    words = words_of(text)
    if len(words) < SHINGLE_WORDS:
        return {words} if words else set()
    return set(zip(*(words[start:] for start in range(SHINGLE_WORDS)), strict=False))


def similar_pairs(texts: Sequence[str], min_jaccard: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`(pairs int64 [n, 2], similarities float64 [n])` of all pairs at least that similar, the earlier text first.

    An inverted index counts what each two sets share: rows of the matrix product of the incidence matrix with its
    transpose. |a ∪ b| = |a| + |b| - |a ∩ b|.
    """
    incidence = _incidence(texts)
    sizes = np.diff(incidence.indptr)
    transposed = incidence.T.tocsr()
    pairs, similarities = [np.zeros((0, 2), np.int64)], [np.zeros(0)]
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        shared = (incidence[start : start + _ROWS_AT_ONCE] @ transposed).tocoo()
        earlier, later = shared.row + start, shared.col
        similarity = shared.data / (sizes[earlier] + sizes[later] - shared.data)
        wanted = (earlier < later) & (similarity >= min_jaccard)
        pairs.append(np.stack([earlier[wanted], later[wanted]], axis=1).astype(np.int64))
        similarities.append(similarity[wanted])
    return np.concatenate(pairs), np.concatenate(similarities)


def _incidence(texts: Sequence[str]) -> sparse.csr_matrix:
    """1 where a text has a shingle: int32 `[n_texts, n_shingles]`. Shingles are numbered as they come, none by a hash."""
    numbers: dict[tuple[str, ...], int] = {}
    columns: list[int] = []
    ends = [0]
    for text in texts:
        columns += [numbers.setdefault(shingle, len(numbers)) for shingle in shingles(text)]
        ends.append(len(columns))
    # A shingle that one text alone has is in no pair's intersection, but in its text's size: it stays.
    return sparse.csr_matrix((np.ones(len(columns), np.int32), columns, ends), (len(texts), len(numbers)))
