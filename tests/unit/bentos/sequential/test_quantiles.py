from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bentos.counters import Buckets
from bentos.sequential.quantiles import QuantileTest

BOUNDS_MS = 1.1 ** np.arange(116)
ALPHA = 0.01


def buckets(values_ms: np.ndarray) -> Buckets:
    found, counts = np.unique(np.searchsorted(BOUNDS_MS, values_ms), return_counts=True)
    return tuple(
        (float(BOUNDS_MS[at]) if at < len(BOUNDS_MS) else math.inf, int(count))
        for at, count in zip(found, counts, strict=True)
    )


def watched(test: QuantileTest, n_looks: int, n: int, slower: float, seed: int) -> QuantileTest:
    """Lognormal durations around 200 ms; the challenger's are `slower` times as long."""
    rng = np.random.default_rng(seed)
    for _ in range(n_looks):
        champion, challenger = 200 * rng.lognormal(0, 0.5, n), slower * 200 * rng.lognormal(0, 0.5, n)
        test = test.updated(buckets(champion), buckets(challenger))
    return test


def test_it_knows_nothing_before_any_data() -> None:
    test = QuantileTest(quantile=0.5, margin=1.1)
    assert (test.champion, test.challenger, test.effect, test.interval(0.05)) == (None, None, None, None)
    assert (test.p_worse(), test.p_fine(), test.n_champion, test.n_challenger) == (1, 1, 0, 0)


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_estimates_are_the_quantiles_of_all_blocks(quantile: float) -> None:
    test = watched(QuantileTest(quantile=quantile, margin=2.0), n_looks=100, n=20, slower=1.5, seed=0)
    z = {0.5: 0.0, 0.95: 1.645}[quantile]
    assert test.champion == pytest.approx(200 * math.exp(0.5 * z), rel=0.08)
    assert test.effect == pytest.approx(1.5, rel=0.1)
    assert (test.n_champion, test.n_challenger) == (2_000, 2_000)


def test_a_slower_challenger_is_worse_and_a_similar_one_proven_fine() -> None:
    slow = watched(QuantileTest(quantile=0.5, margin=1.1), n_looks=150, n=20, slower=1.5, seed=1)
    assert slow.p_worse() < ALPHA
    assert slow.p_fine() > ALPHA
    similar = watched(QuantileTest(quantile=0.5, margin=1.5), n_looks=150, n=20, slower=1.0, seed=1)
    assert similar.p_fine() < ALPHA
    assert similar.p_worse() > ALPHA


@pytest.mark.parametrize("slower", [0.8, 1.25])
def test_the_interval_covers_the_ratio_and_agrees_with_the_p_values(slower: float) -> None:
    for seed in range(3):
        test = watched(QuantileTest(quantile=0.5, margin=1.1), n_looks=150, n=20, slower=slower, seed=seed)
        interval = test.interval(ALPHA)
        assert interval is not None
        assert interval[0] <= slower <= interval[1]
        assert interval[1] < 2 * interval[0]
        assert (interval[0] >= 1.1) == (test.p_worse() <= ALPHA)
        assert (interval[1] <= 1.1) == (test.p_fine() <= ALPHA)


@pytest.mark.parametrize(("quantile", "margin", "slower"), [(0.5, 1.0, 1.0), (0.9, 1.0, 1.0), (0.5, 1.21, 1.21)])
def test_false_alarms_are_rarer_than_alpha_however_often_one_looks(
    quantile: float, margin: float, slower: float
) -> None:
    alarms = {"worse": 0, "fine": 0}
    for seed in range(20):
        test = watched(QuantileTest(quantile=quantile, margin=margin), n_looks=40, n=20, slower=slower, seed=seed)
        alarms["worse"] += test.p_worse() <= 0.05
        alarms["fine"] += test.p_fine() <= 0.05
    assert max(alarms.values()) <= 3  # of 20 at 5 %: more than that has a chance of 2 % at the most


def test_a_margin_between_two_bounds_is_the_next_higher_one() -> None:
    """1.15 times the champion's bound is no bound; a challenger 1.15 times as slow must not be called worse."""
    alarms = sum(
        watched(QuantileTest(quantile=0.5, margin=1.15), n_looks=40, n=20, slower=1.15, seed=seed).p_worse() <= 0.05
        for seed in range(15)
    )
    assert alarms <= 2


def test_durations_beyond_all_bounds_count_as_slow() -> None:
    test = watched(QuantileTest(quantile=0.5, margin=1.1), n_looks=5, n=20, slower=1.0, seed=2)
    for _ in range(10):
        test = test.updated(((BOUNDS_MS[55], 10),), ((math.inf, 10),))
    assert test.p_worse() < 1e-6
    assert test.champion is not None
    assert math.isfinite(test.champion)


def test_durations_of_one_version_wait_for_the_other() -> None:
    known = watched(QuantileTest(quantile=0.5, margin=1.0), n_looks=5, n=20, slower=1.0, seed=3)
    fast, slow = ((float(BOUNDS_MS[50]), 9),), ((float(BOUNDS_MS[60]), 4),)
    assert known.updated(fast, ()).updated(fast, slow) == known.updated(((float(BOUNDS_MS[50]), 18),), slow)


def test_empty_buckets_may_be_left_out() -> None:
    known = watched(QuantileTest(quantile=0.5, margin=1.0), n_looks=5, n=20, slower=1.0, seed=4)
    few = buckets(np.array([150.0, 250.0]))
    all_of_them = tuple((float(bound), dict(few).get(float(bound), 0)) for bound in BOUNDS_MS)
    assert known.updated(few, few) == known.updated(all_of_them, all_of_them)


def test_it_survives_json_and_stays_small() -> None:
    rng, test = np.random.default_rng(5), QuantileTest(quantile=0.95, margin=2.0)
    for _ in range(60):  # from the first bound beyond the last
        test = test.updated(buckets(rng.lognormal(6, 3, 50)), buckets(rng.lognormal(6, 3, 50)))
    kept = json.dumps(test.model_dump(mode="json"), allow_nan=False)
    assert QuantileTest.model_validate(json.loads(kept)) == test
    assert len(kept) < 20_000


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="negative count"):
        QuantileTest(quantile=0.5, margin=1.0).updated(((10.0, -1),), ())
