from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.sequential.e_values import UPLIFTS, alternative, log_e_value, log_mixture, smoothed_rate
from bentos.sequential.rates import PRIOR_RATE, RateTest

ALPHA = 0.01


def watched(test: RateTest, n_looks: int, n: int, champion: float, challenger: float, seed: int) -> RateTest:
    rng = np.random.default_rng(seed)
    for _ in range(n_looks):
        test = test.updated(n, int(rng.binomial(n, champion)), n, int(rng.binomial(n, challenger)))
    return test


def test_it_knows_nothing_before_any_data() -> None:
    test = RateTest(margin=0.005)
    assert (test.champion, test.challenger, test.effect, test.interval(0.05)) == (None, None, None, None)
    assert (test.p_worse(), test.p_fine()) == (1, 1)


def test_estimates_are_those_of_all_requests() -> None:
    test = RateTest(margin=0.0).updated(100, 1, 50, 2).updated(100, 3, 0, 0)
    assert (test.n_champion, test.n_challenger) == (200, 50)
    assert (test.champion, test.challenger) == (0.02, 0.04)
    assert test.effect == pytest.approx(0.02)


def test_a_challenger_that_is_far_worse_is_noticed_within_few_requests() -> None:
    test = watched(RateTest(margin=0.005), n_looks=3, n=10, champion=0.0, challenger=1.0, seed=0)
    assert test.p_worse() < 0.001
    assert test.p_fine() == 1


def test_a_challenger_that_is_as_good_is_proven_so_in_time() -> None:
    test = watched(RateTest(margin=0.05), n_looks=100, n=20, champion=0.02, challenger=0.02, seed=1)
    assert test.p_fine() < ALPHA
    assert test.p_worse() > ALPHA
    interval = test.interval(ALPHA)
    assert interval is not None
    assert interval[0] < 0 < interval[1] <= 0.05


def test_the_interval_agrees_with_both_p_values_at_every_look() -> None:
    rng, test, seen = np.random.default_rng(2), RateTest(margin=0.02), set()
    for _ in range(150):
        test = test.updated(10, int(rng.binomial(10, 0.02)), 10, int(rng.binomial(10, 0.1)))
        interval = test.interval(ALPHA)
        assert interval is not None
        assert (interval[0] >= test.margin) == (test.p_worse() <= ALPHA)
        assert (interval[1] <= test.margin) == (test.p_fine() <= ALPHA)
        seen.add(test.p_worse() <= ALPHA)
    assert seen == {False, True}
    assert interval[0] <= 0.08 <= interval[1]


def test_its_p_value_is_that_of_the_plain_mixture_at_the_margin() -> None:
    """The core that simulations broadcast over many rollouts gives what the state that is kept gives."""
    rng, test = np.random.default_rng(3), RateTest(margin=0.005)
    blocks = [(20, int(rng.binomial(20, 0.02)), 10, int(rng.binomial(10, 0.06))) for _ in range(100)]
    log_e, peak, n, k = np.zeros(len(UPLIFTS)), 0.0, 0, 0
    for n_a, k_a, n_b, k_b in blocks:
        test = test.updated(n_a, k_a, n_b, k_b)
        rate = smoothed_rate(k, n, PRIOR_RATE)
        log_e += log_e_value(n_a, k_a, n_b, k_b, rate, alternative(rate, 0.005, UPLIFTS), 0.005, worse=True)
        peak, n, k = max(peak, float(log_mixture(log_e))), n + n_a, k + k_a
        assert test.p_worse() == pytest.approx(np.exp(-peak), rel=1e-3)
    assert test.p_worse() < ALPHA


def test_requests_of_one_version_wait_for_the_other() -> None:
    apart = RateTest(margin=0.0).updated(10, 1, 0, 0).updated(5, 0, 0, 0).updated(0, 0, 3, 3)
    together = RateTest(margin=0.0).updated(15, 1, 3, 3)
    assert apart == together
    assert RateTest(margin=0.0).updated(10, 1, 0, 0).p_worse() == 1


@pytest.mark.parametrize(("champion", "margin"), [(0.01, 0.0), (0.01, 0.005), (0.3, 0.0)])
def test_false_alarms_are_rarer_than_alpha_however_often_one_looks(champion: float, margin: float) -> None:
    """1,000 challengers at the very edge of what is allowed, looked at 400 times each."""
    rng = np.random.default_rng(4)
    runs, n, alpha = 1_000, 10, 0.05
    log_e, peak = np.zeros((runs, len(UPLIFTS))), np.zeros(runs)
    total, hits = np.zeros(runs), np.zeros(runs)
    for _ in range(400):
        k_a, k_b = rng.binomial(n, champion, runs), rng.binomial(n, champion + margin, runs)
        rate = smoothed_rate(hits, total, PRIOR_RATE)[:, None]
        t_b = alternative(rate, margin, UPLIFTS)
        log_e += log_e_value(n, k_a[:, None], n, k_b[:, None], rate, t_b, margin, worse=True)
        peak, total, hits = np.maximum(peak, log_mixture(log_e)), total + n, hits + k_a
    assert (peak > -np.log(alpha)).mean() <= alpha


def test_rates_that_swing_for_both_alike_raise_no_alarm() -> None:
    """An outage of what both depend on: errors rise to 60 % and fall again while the split changes, too."""
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(15):
        test = RateTest(margin=0.0)
        for look in range(60):
            rate, n_b = (0.6, 15) if 20 <= look < 40 else (0.01, 2)
            test = test.updated(20 - n_b, int(rng.binomial(20 - n_b, rate)), n_b, int(rng.binomial(n_b, rate)))
        assert test.effect is not None
        alarms += test.p_worse() < 0.05
    assert alarms <= 1


def test_the_true_difference_is_covered_at_every_look() -> None:
    rng, missed = np.random.default_rng(6), 0
    for _ in range(20):
        test = RateTest(margin=0.0)
        for _ in range(30):
            test = test.updated(20, int(rng.binomial(20, 0.1)), 20, int(rng.binomial(20, 0.2)))
        interval = test.interval(0.05)  # p-values never rise: the last interval lies in all before it
        assert interval is not None
        missed += not interval[0] <= 0.1 <= interval[1]
    assert missed <= 2


def test_it_survives_json_and_stays_small() -> None:
    test = watched(RateTest(margin=0.003), n_looks=50, n=7, champion=0.01, challenger=0.4, seed=7)
    kept = json.dumps(test.model_dump(mode="json"), allow_nan=False)
    assert RateTest.model_validate(json.loads(kept)) == test
    assert len(kept) < 20_000


@pytest.mark.parametrize("block", [(1, 2, 1, 0), (1, -1, 1, 0), (1, 0, 0, 1), (-1, 0, 1, 0)])
def test_impossible_counts_are_refused(block: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected 0 <= k <= n"):
        RateTest(margin=0.0).updated(*block)


counts = st.integers(0, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(counts, counts), max_size=8), st.floats(-1, 1))
def test_p_values_only_fall_and_stay_in_range(
    blocks: list[tuple[tuple[int, int], tuple[int, int]]], margin: float
) -> None:
    test = RateTest(margin=margin)
    for champion, challenger in blocks:
        after = test.updated(*champion, *challenger)
        assert 0 <= after.p_worse() <= test.p_worse() <= 1
        assert 0 <= after.p_fine() <= test.p_fine() <= 1
        test = after
