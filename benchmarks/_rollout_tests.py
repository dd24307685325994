"""The product's sequential tests for many rollouts at once: its e-values, broadcast; its states as arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from benchmarks._rollout_traffic import BOUNDS_MS, N_BUCKETS, Floats, Ints
from bentos.sequential.e_values import UPLIFTS, alternative, log_e_value, log_mixture, smoothed_rate
from bentos.sequential.quantiles import _LEAST_TAIL
from bentos.sequential.rates import PRIOR_RATE


@dataclass
class _Arrays:
    """Fields that are arrays have the rollouts in their first axis."""

    def kept(self, rows: Ints) -> Self:
        """The same of some rollouts."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: v[rows] if isinstance(v, np.ndarray) else v for name, v in values.items()})


@dataclass
class Rates(_Arrays):
    """`RateTest` at its margin alone; columns of `total` and `pending` are n, k of the champion, n, k of the challenger."""

    margin: float
    total: Floats
    pending: Floats
    log_e: Floats
    peak: Floats

    @classmethod
    def begun(cls, margin: float, n: int) -> Self:
        return cls(margin, np.zeros((n, 4)), np.zeros((n, 4)), np.zeros((n, len(UPLIFTS))), np.zeros(n))

    def update(self, block: Floats) -> None:
        """One more block of each, `[n, 4]`."""
        self.total += block
        self.pending += block
        rows = np.flatnonzero((self.pending[:, 0] > 0) & (self.pending[:, 2] > 0))
        n_a, k_a, n_b, k_b = self.pending[rows].T[..., None]
        before = self.total[rows] - self.pending[rows]
        rate = smoothed_rate(before[:, 1], before[:, 0], PRIOR_RATE)[:, None]
        t_b = alternative(rate, self.margin, UPLIFTS)
        self.log_e[rows] += log_e_value(n_a, k_a, n_b, k_b, rate, t_b, self.margin, worse=True)
        self.peak[rows] = np.maximum(self.peak[rows], log_mixture(self.log_e[rows]))
        self.pending[rows] = 0

    def effect(self) -> Floats:
        n_a, k_a, n_b, k_b = self.total.T
        found: Floats = k_b / n_b.clip(1) - k_a / n_a.clip(1)
        return found

    def least_n(self) -> Floats:
        found: Floats = np.minimum(self.total[:, 0], self.total[:, 2])
        return found


@dataclass
class Medians(_Arrays):
    """`QuantileTest` of the median at its margin alone. Histograms `[n, 2, N_BUCKETS]`: champion, challenger."""

    margin: float
    counts: Ints
    pending: Ints
    log_e: Floats
    peak: Floats

    @classmethod
    def begun(cls, margin: float, n: int) -> Self:
        histogram = np.zeros((n, 2, N_BUCKETS), dtype=np.int64)
        return cls(margin, histogram, histogram.copy(), np.zeros((n, len(UPLIFTS))), np.zeros(n))

    def update(self, block: Ints) -> None:
        """One more block of each, `[n, 2, N_BUCKETS]`."""
        self.pending += block
        rows = np.flatnonzero((self.pending.sum(axis=2) > 0).all(axis=1))
        counts, pending = self.counts[rows], self.pending[rows]
        n_a = counts[:, 0].sum(axis=1)
        above = n_a[:, None] - counts[:, 0].cumsum(axis=1)
        nearest = np.abs(above / n_a.clip(1)[:, None] - 0.5).argmin(axis=1)
        # The next bound at or above margin times the threshold, of those that have been seen.
        least = nearest + math.ceil(math.log(self.margin) / math.log(1.1) - 1e-5)
        usable = (counts.sum(axis=1) > 0) & (np.arange(N_BUCKETS) >= least[:, None])
        known = (n_a * 0.5 >= _LEAST_TAIL) & usable.any(axis=1)
        higher = usable.argmax(axis=1)
        at = np.arange(len(rows))
        later = pending.sum(axis=2)[..., None] - pending.cumsum(axis=2)
        k_a, k_b = later[at, 0, nearest], later[at, 1, higher]
        rate = smoothed_rate(above[at, nearest], n_a, 0.5)[:, None]
        n_of = pending.sum(axis=2)[..., None].astype(np.float64)
        t_b = alternative(rate, 0.0, UPLIFTS)
        log_e = log_e_value(n_of[:, 0], k_a[:, None], n_of[:, 1], k_b[:, None], rate, t_b, 0.0, worse=True)
        self.log_e[rows] += np.where(known[:, None], log_e, 0.0)
        self.peak[rows] = np.maximum(self.peak[rows], log_mixture(self.log_e[rows]))
        self.counts[rows] += pending
        self.pending[rows] = 0

    def effect(self) -> Floats:
        champion, challenger = (self._median(which) for which in (0, 1))
        found: Floats = challenger / champion.clip(1e-9)
        return found

    def least_n(self) -> Floats:
        found: Floats = (self.counts + self.pending).sum(axis=2).min(axis=1).astype(np.float64)
        return found

    def _median(self, which: int) -> Floats:
        """As `bentos.counters.quantile` does: interpolated between bounds that have been seen."""
        histogram = self.counts[:, which] + self.pending[:, which]
        so_far = histogram.cumsum(axis=1)
        rank = so_far[:, -1] / 2
        at = (so_far >= rank[:, None]).argmax(axis=1)
        rows = np.arange(len(histogram))
        told = (self.counts.sum(axis=1) + self.pending[:, which]) > 0
        below = np.where(told & (np.arange(N_BUCKETS) < at[:, None]), np.arange(N_BUCKETS), -1).max(axis=1)
        low = np.where(below >= 0, BOUNDS_MS[below.clip(0)], 0.0)
        count = histogram[rows, at]
        found: Floats = low + (BOUNDS_MS[at] - low) * (rank - so_far[rows, at] + count) / count.clip(1)
        return found
