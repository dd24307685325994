"""Choose the next token of one sequence from its logits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Nearly always holds the top_p share of the probability, at a tenth of the cost of sorting a whole vocabulary.
_CANDIDATES = 512


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

    def _draw(self, shares: NDArray[np.float64]) -> int:
        """Draw by inverting the cumulative distribution: one random number a token."""
        if self._sampling.top_p >= 1:
            return _invert(shares, self._random.random())
        kept = nucleus(shares, self._sampling.top_p)
        return int(kept[_invert(shares[kept], self._random.random())])


def probabilities(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """softmax(logits / temperature), float64 `[vocabulary]`."""
    scaled = logits.astype(np.float64)
    scaled -= scaled.max()
    # Temperatures near 0 may push the others to -inf, whose exponential is 0.
    with np.errstate(over="ignore"):
        scaled /= temperature
    shares: NDArray[np.float64] = np.exp(scaled)
    shares /= shares.sum()
    return shares


def nucleus(shares: NDArray[np.float64], top_p: float) -> NDArray[np.int64]:
    """The fewest tokens that hold at least `top_p` of the probability, most probable first; at least one.

    Equal probabilities are taken in the order of their token ids.
    """
    if len(shares) > _CANDIDATES:
        few = np.sort(np.argpartition(shares, -_CANDIDATES)[-_CANDIDATES:])
        if shares[few].sum() > top_p:
            return _nucleus_of(shares, few, top_p)
    return _nucleus_of(shares, np.arange(len(shares)), top_p)


def _nucleus_of(shares: NDArray[np.float64], tokens: NDArray[np.int64], top_p: float) -> NDArray[np.int64]:
    ordered = tokens[np.argsort(-shares[tokens], kind="stable")]
    return ordered[: int(np.searchsorted(np.cumsum(shares[ordered]), top_p)) + 1]


def _invert(shares: NDArray[np.float64], draw: float) -> int:
    cumulative = np.cumsum(shares)
    return min(int(np.searchsorted(cumulative, draw * cumulative[-1], side="right")), len(shares) - 1)
