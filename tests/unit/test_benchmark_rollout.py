"""Simulated rollouts: the arrays are the product's own rule, and the fixed rules are what is documented."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks._rollout_ours import simulated
from benchmarks._rollout_replay import agrees
from benchmarks._rollout_rules import ARGO, FLAGGER, ruled
from benchmarks._rollout_traffic import MEDIAN_MS, P99_MS, Scenario, histograms, p99_ms
from benchmarks.rollout import plan

DEAD = Scenario("answers nothing", more_errors=0.99)


@pytest.mark.parametrize(
    "scenario", [Scenario("no worse"), Scenario("worse", more_errors=0.1), Scenario("slow", slower=1.5, rate_per_s=3)]
)
def test_a_simulated_rollout_is_decided_as_the_product_does(scenario: Scenario) -> None:
    ours = plan(0.005, 1.1, min_duration_s=5)
    _, recorded = simulated(ours, scenario, 5, seed=0, n_recorded=2)
    assert all(len(rollout) > 3 for rollout in recorded)
    assert all(agrees(ours, rollout[:60]) for rollout in recorded)


def test_another_action_than_the_products_is_noticed() -> None:
    ours = plan(0.005, 1.1, min_duration_s=5)
    _, (rollout,) = simulated(ours, Scenario("no worse"), 1, seed=1, n_recorded=1)
    assert not agrees(ours, [replace(rollout[0], action=rollout[0].action + 1), *rollout[1:5]])


def test_flagger_halts_at_each_failed_check_and_rolls_back_one_interval_after_the_fifth() -> None:
    outcome = ruled(FLAGGER, DEAD, 3, seed=0)
    assert outcome.rolled_back.all()
    assert outcome.verdict_s.tolist() == [360.0] * 3
    assert (outcome.n_exposed / outcome.n_requests).mean() == pytest.approx(0.1, abs=0.01)


def test_flagger_promotes_after_five_checks_in_a_row() -> None:
    outcome = ruled(FLAGGER, Scenario("perfect", errors=0.0, slower=0.5), 3, seed=0)
    assert outcome.promoted.all()
    assert outcome.verdict_s.tolist() == [300.0] * 3


def test_argo_begins_to_measure_at_the_second_weight_and_stops_at_the_third_failure() -> None:
    outcome = ruled(ARGO, DEAD, 3, seed=0)
    assert outcome.verdict_s.tolist() == [600.0 + 2 * 300] * 3
    assert ruled(ARGO, Scenario("perfect", errors=0.0), 3, seed=0).verdict_s.tolist() == [2400.0] * 3


def test_what_was_promoted_goes_on_to_fail() -> None:
    scenario = Scenario("+2", more_errors=0.02)
    outcome = ruled(ARGO, scenario, 50, seed=0)
    assert outcome.promoted.all()
    after = (3600 - 2400) * 20 * 0.02
    assert np.all(outcome.bad_served(scenario) > after)
    assert Scenario("no worse").excess == pytest.approx(0)


def test_traffic_has_the_quantiles_that_it_should() -> None:
    rng = np.random.default_rng(0)
    n = np.full(200, 1_000)
    assert np.median(p99_ms(rng, n, 1.0)) == pytest.approx(P99_MS, rel=0.03)
    counted = histograms(rng, n, 1.0)
    assert counted.sum(axis=1).tolist() == n.tolist()
    assert pytest.approx(P99_MS, rel=0.01) == 3.2 * MEDIAN_MS
