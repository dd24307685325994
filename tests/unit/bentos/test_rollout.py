from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.rollout import decide, error_rate, excess_p_value
from lake.ledger.rollouts import RolloutState
from lake.recipe import Rollout, RolloutStep
from lake.records import ClusterStats, RolloutDecision
from tests.rollouts import BEGIN, rollout_state, stats

PLAN = Rollout(
    steps=(
        RolloutStep(stage="shadow", share=1.0, min_requests=30, max_duration_s=600),
        RolloutStep(stage="ab", share=0.5, min_requests=30, max_duration_s=600),
        RolloutStep(stage="canary", share=1.0, min_requests=30, max_duration_s=600),
    ),
    max_error_rate_increase=0.02,
    max_latency_ratio=2.0,
)
counts = st.integers(0, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


def verdict(
    champion: ClusterStats,
    challenger: ClusterStats,
    *,
    step_index: int = 0,
    elapsed_s: float = 10,
    ready: bool = True,
    plan: Rollout = PLAN,
) -> RolloutDecision:
    return decide(
        rollout_state(step_index, plan),
        champion,
        challenger,
        elapsed_s=elapsed_s,
        challenger_ready=ready,
        decided_at=BEGIN + timedelta(seconds=elapsed_s),
    )


def test_an_equal_challenger_is_promoted_to_the_next_stage() -> None:
    for step_index, following in enumerate(("ab", "canary", "full")):
        decision = verdict(stats(100), stats(30), step_index=step_index)
        assert (decision.action, decision.to_stage) == ("promote", following)


def test_too_few_answers_hold() -> None:
    decision = verdict(stats(100), stats(29))
    assert (decision.action, decision.to_stage) == ("hold", "shadow")
    assert "29 of 30" in decision.reason
    assert verdict(stats(4), stats(100)).action == "hold"


def test_a_challenger_that_takes_all_traffic_needs_no_champion_beside_it() -> None:
    assert verdict(stats(0), stats(30), step_index=2).action == "promote"
    assert verdict(stats(0), stats(30), step_index=0).action == "hold"


def test_answers_whose_latency_is_not_told_yet_hold() -> None:
    assert verdict(stats(100), stats(30, latency_ms=0.0)).action == "hold"
    assert verdict(stats(100, latency_ms=0.0), stats(30)).action == "hold"


def test_many_errors_end_it_at_once() -> None:
    decision = verdict(stats(10), stats(10, n_errors=8))
    assert (decision.action, decision.to_stage) == ("roll_back", "rolled_back")
    assert "8 of 10" in decision.reason


def test_errors_that_both_have_are_not_the_challengers() -> None:
    assert verdict(stats(100, n_errors=30), stats(100, n_errors=30)).action == "promote"


def test_a_few_errors_more_hold_until_the_time_is_over() -> None:
    champion, challenger = stats(100), stats(100, n_errors=4)
    assert verdict(champion, challenger).action == "hold"
    assert verdict(champion, challenger, elapsed_s=600).action == "roll_back"


def test_a_slow_challenger_is_not_promoted_and_not_borne_with_for_long() -> None:
    assert verdict(stats(100), stats(89, latency_ms=201), step_index=1).action == "hold"
    over = verdict(stats(100), stats(90, latency_ms=201), step_index=1)
    assert over.action == "roll_back"
    assert "201 ms against 100 ms" in over.reason
    assert verdict(stats(100), stats(90, latency_ms=200), step_index=1).action == "promote"


def test_a_shadow_that_nobody_waits_for_may_be_slow() -> None:
    assert verdict(stats(100), stats(100, latency_ms=5_000), step_index=0).action == "promote"


def test_silence_ends_in_a_roll_back() -> None:
    assert verdict(stats(0), stats(0), elapsed_s=599).action == "hold"
    assert verdict(stats(0), stats(0), elapsed_s=600).action == "roll_back"


def test_no_ready_endpoint_ends_it_whatever_was_counted() -> None:
    assert verdict(stats(100), stats(100), ready=False).action == "roll_back"


@pytest.mark.parametrize("step_index", [-1, 3])
def test_a_state_outside_its_plan_is_refused(step_index: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 2"):
        verdict(stats(100), stats(100), step_index=step_index)


@given(counts, counts)
def test_p_values_are_probabilities_that_fall_with_errors(
    champion: tuple[int, int], challenger: tuple[int, int]
) -> None:
    n, k = challenger
    found = excess_p_value(stats(*champion), stats(n, k), 0.02)
    assert 0.0 <= found <= 1.0
    if k < n:
        assert excess_p_value(stats(*champion), stats(n, k + 1), 0.02) <= found + 1e-9


def test_p_values_are_fishers() -> None:
    # Lady tasting tea: 3 of 4 right by chance has 17/70.
    assert excess_p_value(stats(4, 1), stats(4, 3), 0.0) == pytest.approx(17 / 70)
    assert excess_p_value(stats(0), stats(3, 1), 0.5) == pytest.approx(7 / 8)


@given(counts, counts, st.sampled_from([0, 1, 2]), st.floats(1, 2_000), st.floats(1, 2_000), st.floats(0, 1_200))
def test_promotion_always_has_its_evidence(
    champion: tuple[int, int],
    challenger: tuple[int, int],
    step_index: int,
    champion_ms: float,
    challenger_ms: float,
    elapsed_s: float,
) -> None:
    one, other = stats(*champion, champion_ms), stats(*challenger, challenger_ms)
    decision = verdict(one, other, step_index=step_index, elapsed_s=elapsed_s)
    if decision.action == "promote":
        assert other.n_requests >= 30
        assert error_rate(other) <= error_rate(one) + 0.02 + 1e-9
        assert step_index == 0 or one.n_requests == 0 or challenger_ms <= 2 * champion_ms
    if decision.action == "hold":
        assert elapsed_s < 600


def simulate(draw: random.Random, error_rates: tuple[float, float], requests_per_s: int = 10) -> tuple[str, int]:
    """One rollout with a look each second: how it ended, and how many clients' requests the challenger answered."""
    plan, n_exposed = Rollout(), 0
    for step_index, step in enumerate(plan.steps):
        state = rollout_state(step_index, plan)
        n_requests, n_errors, latency_sum_ms = [0, 0], [0, 0], [0.0, 0.0]
        for elapsed_s in range(1, 3602):
            for _ in range(requests_per_s):
                live = int(step.stage != "shadow" and draw.random() < step.share)
                n_exposed += live
                for version in (0, 1) if step.stage == "shadow" else (live,):
                    n_requests[version] += 1
                    n_errors[version] += draw.random() < error_rates[version]
                    latency_sum_ms[version] += draw.lognormvariate(5, 0.8)  # tokens differ widely between requests
            action = _look(state, n_requests, n_errors, latency_sum_ms, elapsed_s)
            if action == "roll_back":
                return action, n_exposed
            if action == "promote":
                break
    return "promote", n_exposed


def _look(
    state: RolloutState, n_requests: list[int], n_errors: list[int], latency_sum_ms: list[float], elapsed_s: float
) -> str:
    seen = [
        stats(n, errors, total / max(1, n))
        for n, errors, total in zip(n_requests, n_errors, latency_sum_ms, strict=True)
    ]
    return decide(state, seen[0], seen[1], elapsed_s=elapsed_s, challenger_ready=True, decided_at=BEGIN).action


def test_at_most_one_in_a_hundred_equal_challengers_is_rolled_back() -> None:
    """2,000 rollouts without a difference, error rates of both from 0 to 2%: looking each second adds up to no more."""
    outcomes = Counter(
        simulate(random.Random(seed), (rate, rate))[0] for seed in range(1_000) for rate in (0.02 * seed / 1_000, 0.01)
    )
    assert outcomes.total() == 2_000
    assert outcomes["roll_back"] <= 20, outcomes


def test_a_challenger_with_five_points_more_errors_is_rolled_back() -> None:
    outcomes = [simulate(random.Random(seed), (0.01, 0.06))[0] for seed in range(200)]
    assert outcomes.count("roll_back") >= 170


def test_a_challenger_that_fails_often_meets_few_clients() -> None:
    """30% errors: seen in the shadow, where the answers go nowhere."""
    outcomes = [simulate(random.Random(seed), (0.01, 0.30)) for seed in range(100)]
    assert {action for action, _ in outcomes} == {"roll_back"}
    assert sum(n_exposed for _, n_exposed in outcomes) <= 5
