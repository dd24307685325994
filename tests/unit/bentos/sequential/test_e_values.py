from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from bentos.sequential.e_values import UPLIFTS, alternative, log_e_value, log_mixture, projection, smoothed_rate

MARGINS = (-0.5, -0.1, 0.0, 0.005, 0.1, 0.7)


def test_the_projection_is_the_root_that_bisection_finds() -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    n_a, n_b = rng.integers(1, 200, n).astype(float), rng.integers(1, 200, n).astype(float)
    t_a, t_b = rng.beta(0.3, 1, n).clip(1e-5, 1 - 1e-5), rng.beta(0.3, 1, n).clip(1e-3, 1 - 1e-3)
    margin = rng.choice([0, 0.005, -0.005, 0.05, 0.3, -0.5, 0.9, -0.9], n)
    low, high = np.maximum(0, -margin) + 1e-14, np.minimum(1, 1 - margin) - 1e-14
    for _ in range(100):
        a = (low + high) / 2
        b = a + margin
        growing = n_a * (a - t_a) / (a * (1 - a)) + n_b * (b - t_b) / (b * (1 - b)) > 0
        low, high = np.where(growing, low, a), np.where(growing, a, high)
    np.testing.assert_allclose(projection(n_a, n_b, t_a, t_b, margin), a, rtol=0, atol=1e-12)


def test_without_a_margin_the_projection_is_the_pooled_rate() -> None:
    assert projection(30.0, 10.0, 0.1, 0.5, 0.0) == pytest.approx((30 * 0.1 + 10 * 0.5) / 40, abs=1e-15)


@pytest.mark.parametrize(("n_a", "n_b"), [(1, 1), (3, 2), (1, 6), (8, 1)])
@pytest.mark.parametrize("worse", [True, False])
def test_its_mean_is_at_most_1_under_every_null_over_all_outcomes(n_a: int, n_b: int, worse: bool) -> None:
    """Brute force: every outcome of a small block, many nulls, many alternatives."""
    k_a, k_b = np.meshgrid(np.arange(n_a + 1), np.arange(n_b + 1), indexing="ij")
    sign = 1 if worse else -1
    p_a = np.linspace(0, 1, 21)
    n_checked = 0
    for margin, rate, beyond in itertools.product(MARGINS, (1e-4, 0.01, 0.2, 0.6), (0.0, 0.02, 0.3)):
        p_b = p_a + margin - sign * beyond
        is_null = (p_b >= 0) & (p_b <= 1)
        chance = binom.pmf(k_a[..., None], n_a, p_a[is_null]) * binom.pmf(k_b[..., None], n_b, p_b[is_null])
        for uplift in UPLIFTS:
            t_b = alternative(rate, margin, sign * uplift)
            e_value = np.exp(log_e_value(n_a, k_a, n_b, k_b, rate, t_b, margin, worse=worse))
            assert np.all((e_value[..., None] * chance).sum(axis=(0, 1)) <= 1 + 1e-9)
            n_checked += int(is_null.sum())
    assert n_checked > 5_000


def test_its_mean_is_above_1_where_the_challenger_is_worse() -> None:
    k_a, k_b = np.meshgrid(np.arange(21), np.arange(21), indexing="ij")
    e_value = np.exp(log_e_value(20, k_a, 20, k_b, 0.1, alternative(0.1, 0.05, 0.3), 0.05, worse=True))
    assert (e_value * binom.pmf(k_a, 20, 0.1) * binom.pmf(k_b, 20, 0.45)).sum() > 5


def test_its_mean_stays_at_most_1_when_both_fail_on_the_same_requests() -> None:
    """Two requests, answered by both versions: each fails alone with 0.3, and both together far more often than 0.09."""
    both, one = 0.25, 0.05
    pairs = {(1, 1): both, (1, 0): one, (0, 1): one, (0, 0): 1 - both - 2 * one}
    for uplift in UPLIFTS:
        mean = 0.0
        for (first, p_first), (second, p_second) in itertools.product(pairs.items(), repeat=2):
            k_a, k_b = first[0] + second[0], first[1] + second[1]
            t_b = alternative(0.3, 0.0, uplift)
            mean += p_first * p_second * float(np.exp(log_e_value(2, k_a, 2, k_b, 0.3, t_b, 0.0, worse=True)))
        assert mean < 1


def test_a_block_of_one_version_alone_tells_nothing() -> None:
    assert float(log_e_value(0, 0, 50, 50, 0.01, 0.5, 0.0, worse=True)) == 0
    assert float(log_e_value(50, 0, 0, 0, 0.01, 0.5, 0.0, worse=True)) == 0


def test_an_alternative_within_the_null_tells_nothing() -> None:
    # The champion fails in 1 % of cases: it cannot fail 50 points more often than the challenger.
    assert float(log_e_value(9, 0, 9, 9, 0.01, alternative(0.01, -0.5, -0.1), -0.5, worse=False)) == 0


def test_alternatives_stay_away_from_certainty() -> None:
    assert np.all(alternative(0.99, 0.0, UPLIFTS) < 1)
    assert np.all(alternative(0.001, 0.0, -UPLIFTS) > 0)


def test_an_unknown_rate_is_the_prior_and_a_known_one_is_what_was_seen() -> None:
    assert smoothed_rate(0, 0, 0.02) == pytest.approx(0.02)
    assert smoothed_rate(300, 10_000, 0.02) == pytest.approx(0.03, abs=1e-4)
    assert 0 < smoothed_rate(0, 10_000, 0.02) < 1e-4
    assert 0.97 < smoothed_rate(1_000, 1_000, 0.02) < 1


def test_a_mixture_is_the_mean_and_does_not_overflow() -> None:
    assert log_mixture(np.array([0.0, np.log(3)])) == pytest.approx(np.log(2))
    assert log_mixture(np.array([-5_000.0, 5_000.0])) == pytest.approx(5_000 - np.log(2))
