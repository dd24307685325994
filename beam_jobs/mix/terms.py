"""The terms of documents as arrays: what domains are learned from, and what distinctiveness is measured on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from beam_jobs.mix.words import words_of

# A shorter word says little, and what is longer is no word.
_MIN_LETTERS, _MAX_LETTERS = 2, 30
_NO_TERM = 0
_MAX_REMEMBERED = 100_000


class Terms(NamedTuple):
    """Unique terms by document: those of document `i` lie at `starts[i]:starts[i + 1]`, in order of appearance.

    `hashes` uint64 `[n_terms]` are xxh3 of the case-folded words, `counts` int64 `[n_terms]` say how often each stands
    in its document, `starts` int64 `[n_documents + 1]`.
    """

    hashes: NDArray[np.uint64]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def n_documents(self) -> int:
        return len(self.starts) - 1

    @property
    def documents(self) -> NDArray[np.int64]:
        """The document of each term: int64 `[n_terms]`."""
        return np.repeat(np.arange(self.n_documents), np.diff(self.starts))

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values `[n_terms]` summed by document: float64 `[n_documents]`, 0 for documents without terms."""
        return np.asarray(np.bincount(self.documents, weights=values, minlength=self.n_documents), np.float64)


def terms_of(texts: Sequence[str]) -> Terms:
    """Count the terms of each document: words of letters alone, as numbers, hashes and keys are no subject."""
    hashes: list[int] = []
    counts: list[int] = []
    n_words: list[int] = []  # unique ones by document
    for text in texts:
        found = Counter(words_of(text))
        hashes += map(_hashes.__getitem__, found)
        counts += found.values()
        n_words.append(len(found))
    all_hashes = np.array(hashes, np.uint64)
    is_term = all_hashes != _NO_TERM
    starts = np.concatenate([[0], np.cumsum(is_term)])[np.cumsum([0, *n_words])]
    return Terms(all_hashes[is_term], np.array(counts, np.int64)[is_term], starts)


def sublinear(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 + ln(tf): the twentieth mention of a word says little (Manning, Raghavan, Schütze 2008, section 6.4.1)."""
    return 1 + np.log(counts)


class _Hashes(dict[str, int]):
    """xxh3 of words, remembered: a language has few of them, and looking one up is five times as fast."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        is_term = _MIN_LETTERS <= len(word) <= _MAX_LETTERS and word.isalpha()
        # 0 is kept for what is no term; that a word hashes to it happens once in 2**64.
        hashed: int = xxhash.xxh3_64_intdigest(word.encode()) or 1 if is_term else _NO_TERM
        self[word] = hashed
        return hashed


_hashes = _Hashes()
