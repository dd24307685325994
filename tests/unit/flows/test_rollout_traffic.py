from __future__ import annotations

import math

import numpy as np
import pytest

from bentos.sequential.means import PairedTest
from bentos.sequential.rates import RateTest
from flows.rollout_traffic import ERROR_RATE, estimate, needed, requests_to_detect
from lake.recipe import Rollout
from lake.recipe.rollout import RolloutCheck, RolloutStep

AB = RolloutStep(stage="ab", share=0.5)
SHADOW = RolloutStep(stage="shadow", share=1.0)
ERRORS = RolloutCheck(metric="error_rate", margin=0.005)


def test_needed_solves_its_equation_and_grows_without_bound() -> None:
    n = needed(0.05, 0.02, 0.001)
    assert n == pytest.approx(2 * 0.05 * (math.log(1000) + math.log(n) / 2) / 0.02**2, rel=1e-6)
    assert needed(0.05, 0.0, 0.001) == math.inf
    assert needed(0.05, 0.01, 0.001) > needed(0.05, 0.02, 0.001) > needed(0.05, 0.02, 0.1)


@pytest.mark.parametrize("extra", [0.05, 0.1])
def test_errors_are_found_about_when_the_estimate_says(extra: float) -> None:
    """The median of the very test that decides, over seeded traffic, is within a factor of two."""
    random, alpha = np.random.default_rng(7), Rollout().check_budget
    estimated = requests_to_detect(ERRORS, extra, AB, alpha)
    found = []
    for _ in range(9):
        test, block = RateTest(margin=ERRORS.allowed), max(5, int(estimated / 40))
        while test.p_worse() >= alpha and test.n_challenger < 6 * estimated:
            champion, challenger = random.binomial(block, ERROR_RATE), random.binomial(block, ERROR_RATE + extra)
            test = test.updated(block, int(champion), block, int(challenger))
        found.append(test.n_challenger)
    assert estimated / 2 < np.median(found) < estimated * 2


def test_differing_answers_are_found_about_when_the_estimate_says() -> None:
    random, alpha = np.random.default_rng(8), Rollout().check_budget
    check = RolloutCheck(metric="refusal_rate")
    estimated = requests_to_detect(check, 0.3, SHADOW, alpha)
    found = []
    for _ in range(9):
        test = PairedTest(margin=check.allowed)
        while test.p_worse() >= alpha and test.n < 6 * estimated:
            test = test.updated((random.random(5) < 0.3).astype(float).tolist())
        found.append(test.n)
    assert estimated / 2 < np.median(found) < estimated * 2


def test_what_is_within_the_margin_is_never_found() -> None:
    assert requests_to_detect(ERRORS, 0.005, AB, 0.001) == math.inf
    assert requests_to_detect(RolloutCheck(metric="latency_p50", margin=2.0), 2.0, AB, 0.001) == math.inf
    assert requests_to_detect(RolloutCheck(metric="toxicity"), 0.05, SHADOW, 0.001) == math.inf


def test_a_step_takes_as_long_as_what_it_waits_for() -> None:
    step = RolloutStep(stage="ab", share=0.25, min_requests=100, min_duration_s=10)
    (time,) = estimate(Rollout(steps=(step,), checks=(ERRORS,)), 2.0).steps
    assert (time.challenger_per_s, time.champion_per_s) == (0.5, 1.5)
    assert (time.shortest_s, time.waits_for) == (200.0, "100 requests")
    (quick,) = estimate(Rollout(steps=(step,), checks=(ERRORS,)), 1000.0).steps
    assert (quick.shortest_s, quick.waits_for) == (10.0, "its shortest time")


def test_samples_are_waited_for_where_a_check_rolls_back_and_only_once() -> None:
    steps = (RolloutStep(stage="shadow", share=1, min_requests=1), RolloutStep(stage="ab", share=0.5, min_requests=1))
    checks = (
        RolloutCheck(metric="error_rate", min_samples=400),
        RolloutCheck(metric="toxicity", min_samples=500),
        RolloutCheck(metric="agreement", severity="warn", min_samples=9000),
    )
    shadow, ab = estimate(Rollout(steps=steps, checks=checks), 10.0, log_share=0.5).steps
    assert (shadow.shortest_s, shadow.waits_for) == (100.0, "500 samples of toxicity")  # of half of the requests
    assert ab.shortest_s is not None and ab.shortest_s < 5


def test_a_rare_trickle_is_told_to_be_too_little() -> None:
    plan = Rollout(steps=(SHADOW, RolloutStep(stage="ab", share=0.1, max_duration_s=600)), checks=(ERRORS,))
    found = estimate(plan, 0.1)
    assert found.steps[1].shortest_s is None and found.shortest_s is None
    assert found.warnings == (
        "at 0.1 requests/s step 2 (A/B 10%) cannot reach 30 requests within its 10 min: lower what it waits for, or raise "
        "max_duration_s",
    )


def test_larger_differences_are_found_earlier_and_a_long_plan_finds_more() -> None:
    steps = (SHADOW, AB, RolloutStep(stage="canary", share=0.75))
    short = estimate(Rollout(checks=(ERRORS,), steps=steps), 5.0)
    sizes = [found.n_challenger for found in short.detections]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 3
    assert [found.after_s for found in short.detections] == [None] * 3  # 30 requests a step: over too soon
    patient = tuple(step.model_copy(update={"min_requests": 3000}) for step in steps)
    after = [found.after_s for found in estimate(Rollout(checks=(ERRORS,), steps=patient), 5.0).detections]
    assert after[1] is not None and after[2] is not None and after[2] < after[1]


def test_what_can_never_have_a_say_is_told() -> None:
    checks = (
        RolloutCheck(metric="toxicity"),
        RolloutCheck(metric="feedback"),
        RolloutCheck(metric="error_rate", proof=True, margin=0.001),
    )
    told = "\n".join(estimate(Rollout(steps=(AB,), checks=checks), 1.0).warnings)
    assert "toxicity is compared in shadow only, and the plan has no such step" in told
    assert "feedback waits for 10 samples" in told
    assert "error_rate asks for a proof" in told
    off = estimate(Rollout(steps=(SHADOW,), checks=(RolloutCheck(metric="toxicity"), ERRORS)), 1.0, log_share=0.0)
    assert any("monitoring.log_share is 0" in warning for warning in off.warnings)


def test_a_plan_without_teeth_is_told() -> None:
    checks = (RolloutCheck(metric="error_rate", severity="warn"),)
    assert any("no check rolls back" in told for told in estimate(Rollout(checks=checks), 1.0).warnings)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_no_traffic_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        estimate(Rollout(), rate)
