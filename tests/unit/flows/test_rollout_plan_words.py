from __future__ import annotations

from flows.rollout_plan_words import explained
from lake.recipe import Rollout
from lake.recipe.rollout import RolloutCheck, RolloutStep


def told(plan: Rollout) -> str:
    return "\n".join(line for paragraph in explained(plan) for line in (paragraph.heading, *paragraph.lines))


def test_every_step_and_every_check_of_the_default_plan_is_told() -> None:
    plan = Rollout()
    text = told(plan)
    for name in ("Step 1: shadow 100%", "Step 2: A/B 50%", "Step 3: canary 5%", "Step 5: canary 50%"):
        assert name in text
    rolls_back, _, warns = text.partition("What only warns")
    for check in plan.checks:
        part = rolls_back if check.severity == "fail" else warns
        assert f"\n{check.metric} (" in part


def test_the_budget_is_spread_over_the_checks_that_roll_back() -> None:
    checks = (
        RolloutCheck(metric="error_rate"),
        RolloutCheck(metric="latency_p50"),
        RolloutCheck(metric="cpu_s", severity="warn"),
    )
    text = told(Rollout(checks=checks, error_budget=0.02))
    assert "at most 0.02 in the whole rollout" in text
    assert "2 checks may spend 0.01 each" in text


def test_what_a_step_waits_for_is_told() -> None:
    step = RolloutStep(
        stage="canary", share=0.1, min_requests=1200, min_duration_s=90, max_duration_s=7200, pause="approval"
    )
    text = told(Rollout(steps=(step,)))
    assert "10% of live requests" in text
    assert "1,200 requests that the challenger has answered and 1 min 30 s have passed" in text
    assert "Without a verdict after 2 h it rolls back." in text
    assert "tidemill rollout approve" in text
    held = told(Rollout(steps=(step,), on_inconclusive="hold"))
    assert "Without a verdict after 2 h it holds" in held
    assert "it rolls back" not in held.partition("What rolls back")[0]


def test_directions_and_units_of_margins() -> None:
    checks = (
        RolloutCheck(metric="language", margin=0.02),
        RolloutCheck(metric="latency_p95", margin=1.25),
        RolloutCheck(metric="business:orders", url="http://127.0.0.1/orders", margin=1.1),
        RolloutCheck(metric="answer_length"),
        RolloutCheck(metric="agreement", margin=0.4),
    )
    text = told(Rollout(checks=checks))
    assert "more than 2.00 pt below the champion's" in text
    assert "more than ×1.25 the champion's" in text
    assert "less than the champion's by more than a factor of ×1.10" in text
    assert "http://127.0.0.1/orders is asked every 10 s" in text
    assert "further from the champion's than 0.50" in text
    assert "less alike the champion's answers than 0.6 (1 is equal)" in text


def test_dangerous_plans_say_so() -> None:
    assert "UNTESTED" in told(Rollout(steps=()))
    only_live = Rollout(checks=(RolloutCheck(metric="latency_p50"),), steps=(RolloutStep(stage="shadow", share=1),))
    text = told(only_live)
    assert "NOTHING is compared here" in text
    assert "it is promoted after this step" in text
    assert "No check rolls back" in told(Rollout(checks=(RolloutCheck(metric="cpu_s", severity="warn"),)))
