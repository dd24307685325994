"""SimHash signatures, exact hashes and shingles of a text. Never Python's `hash()`: it differs between processes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Shingles = NDArray[np.uint32]
H = TypeVar("H", np.uint32, np.uint64, np.int64)

# What a stored signature means. A stored index with another specification is refused, not compared.
SPECIFICATION = "xxh3-64;exact:words;simhash:unique-word-3-grams;shingles:5-words;v3"
SHINGLE_WORDS = 5
FEATURE_WORDS = 3

_WORD = re.compile(r"\w+")
_LOWER_OR_SPACE = bytes(ord(chr(c).lower()) if chr(c).isalnum() or chr(c) == "_" else 32 for c in range(128)) + bytes(
    128
)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MURMUR_1, _MURMUR_2, _33 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53), np.uint64(33)


class Fingerprint(NamedTuple):
    """What is kept of a text to find it again.

    `exact` hashes the lower-cased words, so that case, punctuation and spacing do not matter. `signature` is Charikar's
    SimHash (2002), 64 bits, over the unique 3-word grams. `shingles` are the sorted unique hashes of 5-word runs; 32
    bits of each do, as only those of two documents meet: of 1,000 against 1,000, one collides in 4,000 comparisons.
    `n_words` and `n_runs` (of 5 words, repeated ones counted each time) are what was hashed.
    """

    exact: int
    signature: int
    shingles: Shingles
    n_words: int
    n_runs: int


class _WordHashes(dict[str, int]):
    """xxh3 of words, remembered: a language has few of them, and looking one up is five times faster than hashing it."""

    MAX_WORDS = 100_000

    def __missing__(self, word: str) -> int:
        if len(self) >= self.MAX_WORDS:
            self.clear()
        hashed: int = xxhash.xxh3_64_intdigest(word.encode())
        self[word] = hashed
        return hashed


_word_hashes = _WordHashes()


def fingerprint(text: str) -> Fingerprint:
    words = words_of(text)
    hashes = np.fromiter(map(_word_hashes.__getitem__, words), np.uint64, len(words))
    five_word_runs = _runs(hashes, SHINGLE_WORDS)
    return Fingerprint(
        exact=xxhash.xxh3_64_intdigest(hashes.tobytes()),
        signature=_vote(unique(_runs(hashes, FEATURE_WORDS))),
        shingles=unique((five_word_runs >> np.uint64(32)).astype(np.uint32)),
        n_words=len(words),
        n_runs=len(five_word_runs),
    )


def words_of(text: str) -> list[str]:
    r"""Runs of `\w`, in lower case. Plain ASCII is cut at once, in half the time."""
    if text.isascii():
        return text.encode("ascii").translate(_LOWER_OR_SPACE).decode("ascii").split()
    return _WORD.findall(text.lower())


def jaccard(a: Shingles, b: Shingles) -> float:
    """|a ∩ b| / |a ∪ b| of two sorted unique arrays; 1.0 for two empty ones."""
    if not len(a) and not len(b):
        return 1.0
    both = np.concatenate([a, b])
    both.sort(kind="stable")  # merges two sorted runs, in half the time of np.intersect1d
    common = int(np.count_nonzero(both[1:] == both[:-1]))
    return common / (len(both) - common)


def _runs(hashes: Hashes, n: int) -> Hashes:
    """One hash per run of `n` words: uint64 `[max(1, n_words - n + 1)]`; a shorter text is one run."""
    n = min(n, len(hashes))
    if n == 0:
        return hashes
    n_runs = len(hashes) - n + 1
    combined = hashes[:n_runs]
    for offset in range(1, n):  # a polynomial, so that order matters
        combined = combined * _GOLDEN + hashes[offset : offset + n_runs]
    return _mix(combined)


def _mix(values: Hashes) -> Hashes:
    """The finalizer of MurmurHash3 (Appleby): every input bit reaches every output bit."""
    values = (values ^ (values >> _33)) * _MURMUR_1
    values = (values ^ (values >> _33)) * _MURMUR_2
    return values ^ (values >> _33)


def unique(values: NDArray[H]) -> NDArray[H]:
    """Sorted and without repetitions: np.unique, whose hash table takes five to a hundred times as long."""
    ordered = np.sort(values)
    is_first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return ordered[is_first]


@dataclass
class Union(Generic[H]):
    """A growing set of hashes. Merged when half of it is new, so that many small additions are not a square."""

    merged: NDArray[H]
    new: list[NDArray[H]] = field(default_factory=list)

    def add(self, values: NDArray[H]) -> Union[H]:
        self.new.append(values)
        if sum(map(len, self.new)) > max(len(self.merged), 1 << 16):
            self.merged, self.new = self.all(), []
        return self

    def all(self) -> NDArray[H]:
        """Sorted, each once."""
        return unique(np.concatenate([self.merged, *self.new]))


def _vote(features: Hashes) -> int:
    """Bit i is set when more than half of the features have it set."""
    if not len(features):
        return 0
    bits = np.unpackbits(features.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little").astype(np.float32)
    # A product sums columns faster than their sum does, and is exact below 2**24 features.
    majority = np.ones(len(features), np.float32) @ bits * 2 > len(features)
    return int(np.packbits(majority, bitorder="little").view(np.uint64)[0])
