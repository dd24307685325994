from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.envoy_stats import Counters, Snapshot, VersionCounters
from bentos.health import Verdict
from bentos.moves import Move, leaves_shadow, next_move
from lake.ledger.rollouts import RolloutState
from lake.recipe import Rollout, RolloutStep
from lake.records import RolloutDecision
from tests.rollouts import BEGIN, rollout_state

PLAN = Rollout(
    steps=(
        RolloutStep(stage="shadow", share=1.0, min_requests=10, max_duration_s=600),
        RolloutStep(stage="canary", share=0.5, min_requests=10, max_duration_s=600),
    ),
)
READY: tuple[Verdict, str] = ("ready", "it is ready")
GONE: tuple[Verdict, str] = ("gone", "its process died")
STARTING: tuple[Verdict, str] = ("starting", "soon")


def snapshot(at_s: float, **asked: tuple[int, int]) -> Snapshot:
    """Counters at a time; by version: answers and errors, 50 ms each."""
    return Snapshot(
        taken_at=BEGIN + timedelta(seconds=at_s),
        uptime_s=1_000 + int(at_s),
        versions=tuple(
            VersionCounters(
                model="docs",
                version=version,
                counters=Counters(
                    n_answered=n, n_errors=errors, n_latencies=n + errors, latency_sum_ms=50.0 * (n + errors)
                ),
            )
            for version, (n, errors) in asked.items()
        ),
    )


def in_step(step_index: int, baseline: Snapshot | None = None, **changes: Any) -> RolloutState:
    told = (baseline or snapshot(0)).model_dump(mode="json")
    return rollout_state(step_index, PLAN, **{"baseline": told, **changes})


def move(
    state: RolloutState,
    health: tuple[Verdict, str] = READY,
    stats: Snapshot | None = None,
    at_s: float = 10,
    recorded: tuple[RolloutDecision, ...] = (),
) -> Move:
    return next_move(state, health=health, now_stats=stats, recorded=recorded, now=BEGIN + timedelta(seconds=at_s))


def test_a_starting_challenger_is_waited_for() -> None:
    assert move(rollout_state(-1, PLAN), STARTING) == Move("wait")


def test_a_ready_challenger_enters_the_first_step() -> None:
    found = move(rollout_state(-1, PLAN))
    assert (found.kind, found.step_index) == ("enter", 0)
    assert found.decision is not None
    assert (found.decision.action, found.decision.from_stage, found.decision.to_stage) == (
        "start", "pending", "shadow",
    )  # fmt: skip


@pytest.mark.parametrize(("champion", "plan"), [(None, PLAN), ("v1", Rollout(steps=()))])
def test_without_champion_or_steps_it_goes_straight_to_full(champion: str | None, plan: Rollout) -> None:
    found = move(rollout_state(-1, plan, champion=champion))
    assert found.kind == "finish"
    assert found.decision is not None
    assert (found.decision.action, found.decision.to_stage) == ("promote", "full")


@pytest.mark.parametrize("step_index", [-1, 0, 1])
@pytest.mark.parametrize("with_stats", [False, True])
def test_a_dead_challenger_is_rolled_back_even_when_the_gateway_is_silent(step_index: int, with_stats: bool) -> None:
    state = rollout_state(-1, PLAN) if step_index < 0 else in_step(step_index)
    found = move(state, GONE, snapshot(10) if with_stats else None)
    assert found.kind == "finish"
    assert found.decision is not None
    assert (found.decision.action, found.decision.to_stage) == ("roll_back", "rolled_back")
    assert "its process died" in found.decision.reason


def test_without_the_gateways_counters_nothing_is_decided() -> None:
    assert move(in_step(0), stats=None, at_s=10_000) == Move("wait")


def test_a_step_whose_routes_are_not_confirmed_yet_is_not_judged() -> None:
    state = rollout_state(0, PLAN)
    assert move(state, stats=snapshot(10, v1=(50, 0), v2=(50, 0)), at_s=10_000) == Move("wait")


def test_a_restarted_gateway_begins_the_step_anew() -> None:
    reborn = Snapshot(taken_at=BEGIN + timedelta(seconds=10), uptime_s=2, versions=())
    assert move(in_step(1), stats=reborn) == Move("rebase", step_index=1)


def test_after_the_controllers_restart_a_replica_that_still_starts_is_waited_for() -> None:
    assert move(in_step(0), STARTING, snapshot(10, v1=(50, 0)), at_s=10_000) == Move("wait")


def test_evidence_leads_on_and_is_kept() -> None:
    found = move(in_step(0), stats=snapshot(10, v1=(50, 0), v2=(50, 0)))
    assert (found.kind, found.step_index) == ("enter", 1)
    assert found.decision is not None
    assert found.decision.challenger_stats.n_requests == 50
    assert found.decision.challenger_stats.latency_mean_ms == 50.0


def test_the_step_after_the_shadow_is_known() -> None:
    assert [leaves_shadow(rollout_state(step_index, PLAN)) for step_index in (-1, 0, 1)] == [False, False, True]


def test_after_the_last_step_it_is_promoted() -> None:
    found = move(in_step(1), stats=snapshot(10, v1=(50, 0), v2=(50, 0)))
    assert found.kind == "finish"
    assert found.decision is not None
    assert (found.decision.action, found.decision.to_stage) == ("promote", "full")


def test_what_was_counted_before_the_step_does_not_count() -> None:
    before = snapshot(0, v1=(1_000, 0), v2=(1_000, 900))
    found = move(in_step(1, before), stats=snapshot(10, v1=(1_050, 0), v2=(1_050, 900)))
    assert found.decision is not None
    assert (found.decision.action, found.decision.challenger_stats.n_errors) == ("promote", 0)


def test_a_hold_is_noted_when_its_reason_is_new_not_when_its_figures_are() -> None:
    first = move(in_step(0), stats=snapshot(10, v1=(50, 0), v2=(3, 0)))
    assert first.kind == "note"
    assert first.decision is not None
    recorded = (first.decision,)
    assert move(in_step(0), stats=snapshot(11, v1=(60, 0), v2=(4, 0)), recorded=recorded) == Move("wait")
    other = move(in_step(0), stats=snapshot(12, v1=(2, 0), v2=(40, 0)), recorded=recorded)
    assert other.kind == "note"


@given(
    st.integers(-1, 1),
    st.sampled_from([READY, GONE, STARTING]),
    st.sampled_from([None, (0, 0), (5, 0), (50, 0), (50, 40)]),
    st.sampled_from([(0, 0), (50, 0), (50, 40)]),
    st.floats(0, 2_000),
    st.booleans(),
)
def test_every_situation_has_a_move_that_the_ledger_can_make(
    step_index: int,
    health: tuple[Verdict, str],
    challenger: tuple[int, int] | None,
    champion: tuple[int, int],
    at_s: float,
    with_baseline: bool,
) -> None:
    state = in_step(step_index) if with_baseline and step_index >= 0 else rollout_state(step_index, PLAN)
    stats = None if challenger is None else snapshot(at_s, v1=champion, v2=challenger)
    found = move(state, health, stats, at_s)
    if found.kind == "enter":
        assert found.step_index == step_index + 1
    if found.kind in ("enter", "finish", "note"):
        assert found.decision is not None
        assert found.decision.rollout_id == state.rollout_id
    if found.kind == "finish":
        assert found.decision is not None
        assert found.decision.action in ("promote", "roll_back")
    if health == GONE:
        assert found.kind == "finish"
