"""Interpolated Kneser–Ney over streams of symbols: true probabilities, for words and for the bytes of words alike.

With c(·) the counts of the highest order and, below it, the number of different symbols seen before an n-gram:

    P(w | h) = max(c(hw) - D, 0) / c(h·)  +  λ(h) · P(w | h′)        λ(h) = D · |{w: c(hw) > 0}| / c(h·)

where h′ is h without its first symbol, D = n₁ / (n₁ + 2 n₂) from the n-grams seen once and twice, and the caller's
base distribution ends the recursion (Chen and Goodman 1999, section 3.2; Ney, Essen and Kneser 1994 for D). As λ gives
out what D takes, the probabilities of all symbols sum to 1 after any context, if the base distribution's do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from beam_jobs.perplexity.key_index import KeyIndex
from beam_jobs.simhash import Hashes

LogProbabilities = NDArray[np.float32]
Tensors = dict[str, NDArray[np.generic]]

_GOLDEN, _MURMUR, _32 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFF51AFD7ED558CCD), np.uint64(32)
# Where no n-gram was seen once, or none twice, Ney's D would be 0 or 1: something must be left, and something given.
_LEAST_DISCOUNT, _MOST_DISCOUNT = 0.1, 0.95


class _Level(NamedTuple):
    """N-grams of one length: sorted keys, log P of the last symbol after the others (-inf: seen as a context alone),
    and log λ of the whole as a context (0: seen as nobody's context). A last row, at -1, is that of all unseen ones."""

    keys: KeyIndex
    log_p: LogProbabilities
    log_weight: LogProbabilities


class KneserNey:
    """Symbols are uint64, well mixed; a stream holds sequences, each begun by `order - 1` symbols that open it."""

    def __init__(self, levels: Sequence[_Level], log_base_weight: float) -> None:
        self.order, self._levels, self._log_base_weight = len(levels), levels, log_base_weight

    @classmethod
    def train(cls, stream: Hashes, is_predicted: NDArray[np.bool_], log_base: LogProbabilities, order: int) -> Self:
        """Count n-grams up to `order` at the predicted places of a stream `[n]`; at least one is predicted.

        `log_base` float32 `[n]` is the base distribution's log P of each symbol.
        """
        keys = _keys(stream, order)
        levels: list[_Level] = []
        log_base_weight = 0.0
        for below, types in enumerate(_counted(keys, np.flatnonzero(is_predicted))):
            discount = _discount(types.counts)
            if below:
                contexts, context_of = np.unique(keys[below - 1][types.places - 1], return_inverse=True)
                shorter = levels[-1].log_p[levels[-1].keys.find(keys[below - 1][types.places])]
            else:  # all single symbols have the one empty context
                contexts, context_of = np.zeros(1, np.uint64), np.zeros(len(types.keys), np.int64)
                shorter = log_base[types.places]
            total = np.bincount(context_of, types.counts)
            weight = discount * np.bincount(context_of) / total
            p = (types.counts - discount) / total[context_of] + weight[context_of] * np.exp(shorter.astype(np.float64))
            if below:
                levels[-1] = _with_contexts(levels[-1], contexts, np.log(weight))
            else:
                log_base_weight = float(np.log(weight[0]))
            levels.append(_level(types.keys, np.log(p), np.zeros(len(p))))
        return cls(levels, log_base_weight)

    def log_probabilities(self, stream: Hashes, log_base: LogProbabilities) -> LogProbabilities:
        """log P of each symbol of a stream `[n]` after those before it; meaningless where a sequence is opened."""
        return self.in_context(stream, *self.alone(stream, log_base))

    def alone(self, symbols: Hashes, log_base: LogProbabilities) -> tuple[LogProbabilities, LogProbabilities]:
        """log P of symbols `[n]` after nothing, and log λ of each as a context: what `in_context` begins with.

        `log_base` matters for symbols that were never predicted; the others have their share of it already.
        """
        level = self._levels[0]
        rows = level.keys.find(symbols)
        seen = level.log_p[rows]
        log_p = np.where(np.isfinite(seen), seen, np.float32(self._log_base_weight) + log_base)
        return log_p, level.log_weight[rows]

    def knows(self, symbols: Hashes) -> NDArray[np.bool_]:
        """Which symbols were predicted in training."""
        return np.isfinite(self._levels[0].log_p[self._levels[0].keys.find(symbols)])

    def in_context(self, stream: Hashes, log_p: LogProbabilities, log_weight: LogProbabilities) -> LogProbabilities:
        """`log_probabilities` from what `alone` gave for the stream's symbols."""
        for level, keys in zip(self._levels[1:], _keys(stream, self.order)[1:], strict=True):
            rows = level.keys.find(keys)
            seen = level.log_p.take(rows)
            # The context of a symbol ends a place before it. An unseen n-gram leaves its probability to the shorter one.
            log_p = np.where(np.isfinite(seen), seen, np.roll(log_weight, 1) + log_p)
            log_weight = level.log_weight.take(rows)
        return log_p

    def tensors(self, name: str) -> Tensors:
        """Everything that makes the model, by names that begin with `name`."""
        found: Tensors = {f"{name}.base_weight": np.array([self._log_base_weight], np.float64)}
        for length, level in enumerate(self._levels, 1):
            found[f"{name}.{length}.keys"] = level.keys.keys
            found[f"{name}.{length}.log_p"] = level.log_p
            found[f"{name}.{length}.log_weight"] = level.log_weight
        return found

    @classmethod
    def from_tensors(cls, name: str, tensors: Mapping[str, NDArray[np.generic]]) -> Self:
        """What `tensors` gave. Raises KeyError when one is missing."""
        order = sum(found.startswith(f"{name}.") and found.endswith(".keys") for found in tensors)
        levels = [
            _Level(
                KeyIndex(tensors[f"{name}.{length}.keys"].astype(np.uint64, copy=False)),
                tensors[f"{name}.{length}.log_p"].astype(np.float32, copy=False),
                tensors[f"{name}.{length}.log_weight"].astype(np.float32, copy=False),
            )
            for length in range(1, order + 1)
        ]
        return cls(levels, float(tensors[f"{name}.base_weight"].astype(np.float64)[0]))


class _Types(NamedTuple):
    """Different n-grams of one length: sorted keys, a place where each ends, and its count."""

    keys: Hashes
    places: NDArray[np.int64]
    counts: NDArray[np.int64]


def _counted(keys: Sequence[Hashes], places: NDArray[np.int64]) -> list[_Types]:
    """Shortest first. Below the highest order, a count is of the different n-grams, one symbol longer, that end so."""
    found: list[_Types] = []
    for of_length in reversed(keys):
        unique, first, counts = np.unique(of_length[places], return_index=True, return_counts=True)
        places = places[first]
        found.append(_Types(unique, places, counts))
    return found[::-1]


def _keys(stream: Hashes, order: int) -> list[Hashes]:
    """For each length up to `order`, a hash of the n-gram that ends at each place: uint64 `[n]`."""
    keys = [stream]
    for _ in range(order - 1):
        mixed = np.roll(keys[-1], 1) * _GOLDEN + stream
        mixed ^= mixed >> _32
        mixed *= _MURMUR
        keys.append(mixed ^ (mixed >> _32))
    return keys


def _discount(counts: NDArray[np.int64]) -> float:
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    ney = once / (once + 2 * twice) if once else 0.0
    return min(max(ney, _LEAST_DISCOUNT), _MOST_DISCOUNT)


def _with_contexts(level: _Level, keys: Hashes, log_weight: NDArray[np.float64]) -> _Level:
    """The level with the weights of its n-grams as contexts, and rows for those that only ever open a sequence."""
    merged = np.union1d(level.keys.keys, keys)
    log_p = np.full(len(merged), -np.inf)
    log_p[np.searchsorted(merged, level.keys.keys)] = level.log_p[:-1]
    weights = np.zeros(len(merged))
    weights[np.searchsorted(merged, keys)] = log_weight
    return _level(merged, log_p, weights)


def _level(keys: Hashes, log_p: NDArray[np.floating], log_weight: NDArray[np.floating]) -> _Level:
    return _Level(
        KeyIndex(keys), np.append(log_p, -np.inf).astype(np.float32), np.append(log_weight, 0.0).astype(np.float32)
    )
