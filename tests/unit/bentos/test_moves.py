from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.counters import Snapshot
from bentos.health import Verdict
from bentos.moves import Move, leaves_shadow, next_move
from lake.ledger.rollout_state import Observations, RolloutState
from lake.recipe import Rollout, RolloutStep
from lake.records import RolloutDecision
from tests.rollouts import BEGIN, LOOSE_CHECKS, begun, rollout_state, snapshot

PLAN = Rollout(
    steps=(
        RolloutStep(stage="shadow", share=1.0, min_requests=10, max_duration_s=600),
        RolloutStep(stage="canary", share=0.5, min_requests=10, max_duration_s=600),
    ),
    checks=LOOSE_CHECKS[:1],
)
READY: tuple[Verdict, str] = ("ready", "it is ready")
GONE: tuple[Verdict, str] = ("gone", "its process died")
STARTING: tuple[Verdict, str] = ("starting", "soon")
SPOKEN = Observations(metric="refusal_rate", step_index=0, paired=(0.0,))


def in_step(step_index: int, before: Snapshot | None = None, **changes: Any) -> RolloutState:
    """A rollout whose step has begun to count, from `before` on."""
    evidence = begun(PLAN, step_index)
    if before is not None:
        evidence = evidence.model_copy(update={"snapshot": before})
    return rollout_state(step_index, PLAN, **{"evidence": evidence.model_dump(mode="json"), **changes})


def move(
    state: RolloutState,
    health: tuple[Verdict, str] = READY,
    stats: Snapshot | None = None,
    at_s: float = 10,
    recorded: tuple[RolloutDecision, ...] = (),
    seen: tuple[tuple[int, Observations], ...] = (),
) -> Move:
    now = BEGIN + timedelta(seconds=at_s)
    return next_move(state, health=health, now_stats=stats, seen=seen, recorded=recorded, now=now)


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


@pytest.mark.parametrize(
    "reborn",
    [
        Snapshot(taken_at=BEGIN + timedelta(seconds=10), uptime_s=2, versions=()),  # the gateway was started again
        Snapshot(taken_at=BEGIN - timedelta(hours=1), uptime_s=1_010, versions=()),  # the clock was set back
        Snapshot(taken_at=BEGIN + timedelta(hours=9), uptime_s=1_010, versions=()),  # or on
    ],
)
def test_what_cannot_be_counted_is_left_out_and_nothing_is_decided(reborn: Snapshot) -> None:
    state = in_step(1)
    found = move(state, stats=reborn)
    assert (found.kind, found.decision) == ("weigh", None)
    assert found.evidence is not None
    assert found.evidence.snapshot == reborn
    assert found.evidence.elapsed_s == 0.0


def test_after_the_controllers_restart_a_replica_that_still_starts_is_waited_for() -> None:
    assert move(in_step(0), STARTING, snapshot(10, v1=(50, 0)), at_s=10_000) == Move("wait")


def test_evidence_leads_on_and_is_kept() -> None:
    found = move(in_step(0), stats=snapshot(10, v1=(50, 0), v2=(50, 0)))
    assert (found.kind, found.step_index) == ("enter", 1)
    assert found.decision is not None
    assert found.decision.challenger_stats.n_requests == 50
    assert found.decision.challenger_stats.latency_mean_ms == pytest.approx(50.0)


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


def test_a_hold_is_told_when_its_reason_is_new_not_when_its_figures_are() -> None:
    first = move(in_step(0), stats=snapshot(10, v1=(50, 0), v2=(3, 0)))
    assert (first.kind, first.is_news) == ("weigh", True)
    assert first.decision is not None
    assert first.evidence is not None
    recorded = (first.decision,)
    again = move(in_step(0), stats=snapshot(11, v1=(60, 0), v2=(4, 0)), recorded=recorded)
    assert (again.kind, again.is_news) == ("weigh", False)
    other = move(in_step(0), stats=snapshot(12, v1=(2, 0), v2=(40, 0)), recorded=recorded)
    assert (other.kind, other.is_news) == ("weigh", True)


def test_the_next_step_begins_with_the_tests_and_nothing_else() -> None:
    found = move(in_step(0), stats=snapshot(10, v1=(50, 0), v2=(50, 0)), seen=((9, SPOKEN),))
    assert found.kind == "enter"
    assert found.evidence is not None
    assert found.evidence.tests.keys() == {"error_rate"}
    assert (found.evidence.snapshot, found.evidence.observed) == (None, 9)
    assert found.evidence.split is not None
    assert found.evidence.split.n_challenger == 0
    assert found.looked is not None
    assert found.looked.challenger.n_requests == 50


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
    counts: bool,
) -> None:
    state = in_step(step_index) if counts and step_index >= 0 else rollout_state(step_index, PLAN)
    stats = None if challenger is None else snapshot(at_s, v1=champion, v2=challenger)
    found = move(state, health, stats, at_s)
    if found.kind == "enter":
        assert found.step_index == step_index + 1
        assert found.evidence is not None
    if found.kind in ("enter", "finish"):
        assert found.decision is not None
        assert found.decision.rollout_id == state.rollout_id
    if found.kind == "finish":
        assert found.decision is not None
        assert found.decision.action in ("promote", "roll_back")
    if health == GONE:
        assert found.kind == "finish"
