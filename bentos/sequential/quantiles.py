"""Is a quantile of the challenger's durations more than `margin` times the champion's?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bentos import counters
from bentos.counters import Buckets
from bentos.sequential.e_values import UPLIFTS, Floats, alternative, log_e_value, smoothed_rate
from bentos.sequential.evidence import Evidence
from lake.records import Record

# Ratios of quantiles at which the confidence sequence is read off.
_RATIOS = (0.1, 0.2, 1 / 3, 0.5, 2 / 3, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 4 / 3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)  # fmt: skip
# Stands for the bound of the last bucket, which is infinite: JSON has no such number.
_BEYOND_MS = 1e12
_SAME = 1e-6  # bounds are told with six or more digits
# Before a threshold is set: so many of the champion's durations on the thinner side of the quantile.
_LEAST_TAIL = 5


class QuantileTest(Record):
    """Sequential test of a quantile; `effect` is the challenger's over the champion's, `margin` a factor above 0.

    For a ratio r it compares two rates: P(challenger > r tau) with P(champion > tau), where tau is the bound next to the
    champion's quantile in *earlier* blocks. Were the challenger's durations at most r times the champion's, the first
    rate would be at most the second, whatever tau is; with tau at the quantile, the first rate being the greater says
    that the challenger's quantile lies above r tau. tau is known before a block begins, so the e-variables of `e_values`
    multiply. It is a two-sample form of the sequential tests of quantiles by counting what lies above a threshold
    (Howard & Ramdas, "Sequential estimation of quantiles with applications to A/B testing and best-arm identification",
    Bernoulli 28, 2022), and as theirs it does not mind how durations are distributed.

    r tau is seldom a bound. Against "at most r" the challenger is counted above the next *higher* bound seen so far,
    against "at least r" above the next lower one: either way the test is conservative, by up to one bucket's width. With
    bounds a factor of 1.1 apart, a margin of 1.05 is a margin of 1.1.

    `bounds` are all bounds in earlier blocks, `champion_counts` and `challenger_counts` the counts within. A block
    counts once it holds durations of both; what came since the last one is pending.
    """

    quantile: float
    margin: float
    bounds: tuple[float, ...] = ()
    champion_counts: tuple[int, ...] = ()
    challenger_counts: tuple[int, ...] = ()
    champion_pending: Buckets = ()
    challenger_pending: Buckets = ()
    evidence: Evidence | None = None

    @property
    def n_champion(self) -> int:
        return sum(self.champion_counts) + _n(self.champion_pending)

    @property
    def n_challenger(self) -> int:
        return sum(self.challenger_counts) + _n(self.challenger_pending)

    @property
    def champion(self) -> float | None:
        """The quantile of all blocks together in ms, interpolated within its bucket."""
        return self._estimate(self.champion_counts, self.champion_pending)

    @property
    def challenger(self) -> float | None:
        return self._estimate(self.challenger_counts, self.challenger_pending)

    @property
    def effect(self) -> float | None:
        champion, challenger = self.champion, self.challenger
        return challenger / champion if champion and challenger is not None else None

    def p_worse(self) -> float:
        return self.evidence.p_worse(self.margin) if self.evidence else 1.0

    def p_fine(self) -> float:
        return self.evidence.p_fine(self.margin) if self.evidence else 1.0

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """At the resolution of the grid of ratios; the upper end is infinite while nothing is refuted."""
        return self.evidence.interval(alpha, 0.0, math.inf) if self.evidence else None

    def updated(self, champion: Buckets, challenger: Buckets) -> Self:
        """The test after one more block: pairs of a bucket's upper bound in ms (the last may be infinite) and its count.

        Buckets without a count may be left out. Raises ValueError for a negative count.
        """
        if any(count < 0 for _, count in (*champion, *challenger)):
            raise ValueError("a bucket with a negative count, expected the counts within buckets")
        total = self.model_copy(
            update={
                "champion_pending": _merged(self.champion_pending, champion),
                "challenger_pending": _merged(self.challenger_pending, challenger),
            }
        )
        return total._closed() if total.champion_pending and total.challenger_pending else total

    def _closed(self) -> Self:
        """The pending block enters the evidence, and only then the histograms that choose the next threshold."""
        bounds = tuple(sorted({*self.bounds, *dict(self.champion_pending), *dict(self.challenger_pending)}))
        return self.model_copy(
            update={
                "evidence": self._evidence(),
                "bounds": bounds,
                "champion_counts": _counts(bounds, self.bounds, self.champion_counts, self.champion_pending),
                "challenger_counts": _counts(bounds, self.bounds, self.challenger_counts, self.challenger_pending),
                "champion_pending": (),
                "challenger_pending": (),
            }
        )

    def _evidence(self) -> Evidence | None:
        tail = 1 - self.quantile
        if sum(self.champion_counts) * min(tail, self.quantile) < _LEAST_TAIL:
            return self.evidence
        before = self.evidence or Evidence.none((*_RATIOS, self.margin))
        bounds, counts = np.array(self.bounds), np.array(self.champion_counts)
        above = counts.sum() - np.cumsum(counts)
        nearest = int(np.argmin(np.abs(above / counts.sum() - tail)))
        thresholds = np.array(before.grid) * bounds[nearest]
        higher = np.searchsorted(bounds, thresholds * (1 - _SAME), side="left")
        lower = np.searchsorted(bounds, thresholds * (1 + _SAME), side="right") - 1
        rate = smoothed_rate(above[nearest], counts.sum(), tail)
        n_a, k_a = _n(self.champion_pending), _above(self.champion_pending, bounds[nearest : nearest + 1])[0]
        block = n_a, k_a, _n(self.challenger_pending)
        worse, fine = (
            _log_e(block, _above(self.challenger_pending, bounds[at.clip(0, len(bounds) - 1)]), rate, sign)
            # Beyond all known bounds there is nothing to count above.
            * ((at >= 0) & (at < len(bounds)))[:, None]
            for at, sign in ((higher, 1), (lower, -1))
        )
        return before.multiplied(worse, fine)

    def _estimate(self, counts: Sequence[int], pending: Buckets) -> float | None:
        buckets = dict(zip(self.bounds, counts, strict=True))
        for bound, count in pending:
            buckets[bound] = buckets.get(bound, 0) + count
        # Bounds without a count stay: they tell where the next bucket begins.
        told = [(math.inf if bound == _BEYOND_MS else bound, count) for bound, count in buckets.items()]
        return counters.quantile(self.quantile, told) if any(count for _, count in told) else None


def _log_e(block: tuple[int, int, int], k_challenger: NDArray[np.int64], rate: Floats, sign: int) -> Floats:
    """`[n_grid, n_uplifts]`: of the block (n and k of the champion, n of the challenger), whose k is `[n_grid]`."""
    n_a, k_a, n_b = block
    k_b = k_challenger[:, None].astype(np.float64)
    return log_e_value(n_a, k_a, n_b, k_b, rate, alternative(rate, 0.0, sign * UPLIFTS), 0.0, worse=sign > 0)


def _n(buckets: Buckets) -> int:
    return sum(count for _, count in buckets)


def _above(buckets: Buckets, thresholds: Floats) -> NDArray[np.int64]:
    """How many lie above each of the thresholds, which are bounds of these buckets or of none."""
    bounds, counts = np.array([bound for bound, _ in buckets]), np.array([count for _, count in buckets])
    found: NDArray[np.int64] = (counts * (bounds > thresholds[:, None] * (1 + _SAME))).sum(axis=-1)
    return found


def _merged(one: Buckets, other: Buckets) -> Buckets:
    merged = dict(one)
    for bound, count in other:
        if count:
            finite = min(bound, _BEYOND_MS)
            merged[finite] = merged.get(finite, 0) + count
    return tuple(sorted(merged.items()))


def _counts(bounds: Sequence[float], known: Sequence[float], counts: Sequence[int], more: Buckets) -> tuple[int, ...]:
    before, added = dict(zip(known, counts, strict=True)), dict(more)
    return tuple(before.get(bound, 0) + added.get(bound, 0) for bound in bounds)
