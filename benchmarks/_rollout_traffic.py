"""Traffic of simulated rollouts: how often both versions fail, how long they take, and what counts as a bad request."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Durations are lognormal. The champion's 99th percentile is 400 ms, so that Flagger's documented 500 ms is 1.25 times
# what is normal.
SIGMA = 0.5
P99_MS = 400.0
MEDIAN_MS = P99_MS / math.exp(SIGMA * norm.ppf(0.99))
# Bounds of the buckets that a gateway counts durations in, a factor of 1.1 apart: those that any of it falls into.
FIRST_BUCKET, N_BUCKETS = 22, 64
BOUNDS_MS: Floats = np.float64(1.1) ** np.arange(FIRST_BUCKET, FIRST_BUCKET + N_BUCKETS, dtype=np.float64)
HORIZON_S = 3600


@dataclass(frozen=True)
class Scenario:
    """A champion that fails in `errors` of its requests, a challenger in `more_errors` more, `slower` times as slow."""

    name: str
    more_errors: float = 0.0
    slower: float = 1.0
    errors: float = 0.01
    rate_per_s: float = 20.0

    @property
    def is_null(self) -> bool:
        return self.more_errors == 0 and self.slower == 1

    @property
    def excess(self) -> float:
        """Bad requests more than the champion's, of each that the challenger answers: failed, or above its p95."""
        slow = float(norm.sf(norm.ppf(0.95) - math.log(self.slower) / SIGMA)) - 0.05
        return self.more_errors + slow


@dataclass(frozen=True)
class Outcome:
    """Of `n` rollouts each: whether it was rolled back, when the verdict came (`HORIZON_S`: none), requests until then.

    `inconclusive`: not for what was seen, but as a step's time was over without a verdict. `n_exposed` are requests of
    clients that the challenger answered until the verdict.
    """

    rolled_back: Bools
    inconclusive: Bools
    promoted: Bools
    verdict_s: Floats
    n_requests: Floats
    n_exposed: Floats

    def bad_served(self, scenario: Scenario) -> Floats:
        """Expected bad requests beyond the champion's within the horizon: a promoted challenger goes on serving."""
        afterwards = np.where(self.promoted, (HORIZON_S - self.verdict_s).clip(0) * scenario.rate_per_s, 0.0)
        bad: Floats = scenario.excess * (self.n_exposed + afterwards)
        return bad


def histograms(rng: np.random.Generator, n: Ints, slower: float) -> Ints:
    """Durations of `n` requests each, counted in buckets: `[len(n), N_BUCKETS]`."""
    logs = math.log(MEDIAN_MS * slower) + SIGMA * rng.standard_normal(int(n.sum()))
    bucket = (np.ceil(logs / math.log(1.1)).astype(np.int64) - FIRST_BUCKET).clip(0, N_BUCKETS - 1)
    rows = np.repeat(np.arange(len(n)), n)
    counted = np.bincount(rows * N_BUCKETS + bucket, minlength=len(n) * N_BUCKETS)
    found: Ints = counted.reshape(len(n), N_BUCKETS)
    return found


def p99_ms(rng: np.random.Generator, n: Ints, slower: float) -> Floats:
    """The 99th percentile of `n` durations each: an order statistic, drawn as such."""
    rank = np.ceil(0.99 * n).clip(1)
    found: Floats = MEDIAN_MS * slower * np.exp(SIGMA * norm.ppf(rng.beta(rank, (n + 1 - rank).clip(1))))
    return found
