"""Choose the next token of one sequence from its logits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Tokens at least this probable nearly always hold the top_p share, and sorting them costs a hundredth of sorting all.
_FLOORS = (1e-2, 1e-3, 1e-4)
# A lower temperature already leaves the others nothing that float32 could hold.
_MIN_TEMPERATURE = 1e-6
_BLOCK = 256


@dataclass(frozen=True)
class Sampling:
    """As in OpenAI's API: temperature 0 takes the most probable token; penalties are subtracted from the logits.

    The same seed, prompt and parameters give the same tokens, whatever else is in the batch.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


class Sampler:
    """The sampling state of one sequence: its random numbers and what it has generated so far."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.Generator(np.random.PCG64(sampling.seed))
        self._penalized = bool(sampling.presence_penalty or sampling.frequency_penalty)
        self._counts: Counter[int] = Counter()

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token, from float32 logits `[vocabulary]`; the array may be changed."""
        sampling = self._sampling
        if self._counts:
            seen = np.fromiter(self._counts.keys(), dtype=np.int64)
            counts = np.fromiter(self._counts.values(), dtype=np.float32)
            logits[seen] -= sampling.presence_penalty + sampling.frequency_penalty * counts
        if sampling.temperature == 0:
            token = int(logits.argmax())
        else:
            token = self._draw(probabilities(logits, sampling.temperature))
        if self._penalized:
            self._counts[token] += 1
        return token

    def _draw(self, shares: NDArray[np.float32]) -> int:
        """Draw by inverting the cumulative distribution: one random number a token."""
        if self._sampling.top_p >= 1:
            return invert(shares, self._random.random())
        kept = nucleus(shares, self._sampling.top_p)
        return int(kept[invert(shares[kept], self._random.random())])


def probabilities(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """softmax(logits / temperature), float32 `[vocabulary]`."""
    shares: NDArray[np.float32] = logits - logits.max()
    shares /= max(temperature, _MIN_TEMPERATURE)
    np.exp(shares, out=shares)
    shares /= shares.sum()
    return shares


def nucleus(shares: NDArray[np.float32], top_p: float) -> NDArray[np.int64]:
    """The fewest tokens that hold at least `top_p` of the probability, most probable first; at least one.

    Equal probabilities are taken in the order of their token ids.
    """
    for floor in _FLOORS:
        likely = np.flatnonzero(shares >= floor)
        # All tokens above a floor come before all below it: if they suffice, nothing else is in the nucleus.
        if shares[likely].sum(dtype=np.float64) > top_p:
            return _nucleus_of(shares, likely, top_p)
    return _nucleus_of(shares, np.arange(len(shares)), top_p)


def invert(shares: NDArray[np.float32], draw: float) -> int:
    """The token at which the cumulative distribution passes `draw` in [0, 1). Sums blocks first, then within one."""
    n_whole = len(shares) // _BLOCK * _BLOCK
    blocks = np.append(shares[:n_whole].reshape(-1, _BLOCK).sum(axis=1, dtype=np.float64), shares[n_whole:].sum())
    ends = np.cumsum(blocks)
    wanted = draw * ends[-1]
    block = min(int(np.searchsorted(ends, wanted, side="right")), len(blocks) - 1)
    inside = np.cumsum(shares[block * _BLOCK : (block + 1) * _BLOCK], dtype=np.float64)
    before = ends[block - 1] if block else 0.0
    # Rounding may leave the last block empty of what is wanted: the last token that has a share is meant.
    at = min(int(np.searchsorted(inside, wanted - before, side="right")), max(len(inside) - 1, 0))
    return _last_possible(shares, block * _BLOCK + at)


def _nucleus_of(shares: NDArray[np.float32], tokens: NDArray[np.int64], top_p: float) -> NDArray[np.int64]:
    ordered = tokens[np.argsort(-shares[tokens], kind="stable")]
    return ordered[: int(np.searchsorted(np.cumsum(shares[ordered], dtype=np.float64), top_p)) + 1]


def _last_possible(shares: NDArray[np.float32], token: int) -> int:
    """The token, or the nearest one before it that has a probability at all."""
    token = min(token, len(shares) - 1)
    while token > 0 and shares[token] == 0:
        token -= 1
    return token
