"""What to do next with a rollout, from its state, its challenger's health and the gateway's counters. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from bentos.envoy_stats import Snapshot, window
from bentos.health import Verdict
from bentos.rollout import NO_REQUESTS, decide, next_stage
from lake.ledger.rollouts import RolloutState
from lake.records import ClusterStats, RolloutAction, RolloutDecision

Kind = Literal["wait", "enter", "rebase", "finish", "note"]


@dataclass(frozen=True)
class Move:
    """One act on the ledger.

    `wait`: none. `enter`: go to step `step_index`. `rebase`: count the current step's requests anew. `finish`: end
    with the decision's action. `note`: record a hold whose reason is new. `decision` is recorded with the act.
    """

    kind: Kind
    step_index: int = -1
    decision: RolloutDecision | None = None


def next_move(
    state: RolloutState,
    *,
    health: tuple[Verdict, str],
    now_stats: Snapshot | None,
    recorded: Sequence[RolloutDecision],
    now: datetime,
) -> Move:
    """The next act on a running rollout.

    `now_stats` is None while the gateway does not answer: only the challenger's death is acted on then. `recorded` are
    the rollout's decisions so far.
    """
    if state.step_index < 0:
        return _before_first_step(state, health, now)
    evidence = _evidence(state, now_stats)
    if health[0] == "gone":
        champion, challenger = evidence or (NO_REQUESTS, NO_REQUESTS)
        decision = decide(
            state, champion, challenger, elapsed_s=_elapsed_s(state, now), challenger_ready=False, decided_at=now
        )
        return Move("finish", decision=decision.model_copy(update={"reason": f"{decision.reason}: {health[1]}"}))
    if now_stats is None or state.baseline is None:
        return Move("wait")
    if evidence is None:
        return Move("rebase", step_index=state.step_index)
    if health[0] == "starting":
        return Move("wait")
    champion, challenger = evidence
    decision = decide(
        state, champion, challenger, elapsed_s=_elapsed_s(state, now), challenger_ready=True, decided_at=now
    )
    if decision.action == "roll_back":
        return Move("finish", decision=decision)
    if decision.action == "promote":
        last = state.step_index + 1 == len(state.plan.steps)
        return Move("finish" if last else "enter", step_index=state.step_index + 1, decision=decision)
    return Move("note", decision=decision) if _is_new(decision, recorded) else Move("wait")


def rolled_back(state: RolloutState, reason: str, now: datetime, now_stats: Snapshot | None = None) -> RolloutDecision:
    """The decision to roll back for a reason that lies outside the counters."""
    return _decision(state, "roll_back", "rolled_back", reason, now, _evidence(state, now_stats))


def _before_first_step(state: RolloutState, health: tuple[Verdict, str], now: datetime) -> Move:
    verdict, words = health
    waited_s = (now - state.started_at).total_seconds()
    if verdict == "gone":
        return Move("finish", decision=rolled_back(state, f"{state.challenger} cannot serve: {words}", now))
    if verdict == "starting":
        return Move("wait")
    ready = f"{state.challenger} is ready after {waited_s:.0f} s"
    if state.champion is None:
        reason = f"{ready}; it is the first version, so there is nothing to compare it with"
        return Move("finish", decision=_decision(state, "promote", "full", reason, now))
    if not state.plan.steps:
        reason = f"{ready}; the plan has no steps"
        return Move("finish", decision=_decision(state, "promote", "full", reason, now))
    reason = f"{ready}; it challenges {state.champion}"
    return Move("enter", step_index=0, decision=_decision(state, "start", next_stage(state), reason, now))


def _evidence(state: RolloutState, now_stats: Snapshot | None) -> tuple[ClusterStats, ClusterStats] | None:
    """What champion and challenger did within the step; None without a baseline that the counters still go with."""
    if state.baseline is None or now_stats is None:
        return None
    before = Snapshot.model_validate(state.baseline)
    challenger = window(before, now_stats, state.model, state.challenger)
    champion = NO_REQUESTS if state.champion is None else window(before, now_stats, state.model, state.champion)
    return None if champion is None or challenger is None else (champion, challenger)


def _decision(
    state: RolloutState,
    action: RolloutAction,
    to_stage: str,
    reason: str,
    now: datetime,
    evidence: tuple[ClusterStats, ClusterStats] | None = None,
) -> RolloutDecision:
    champion, challenger = evidence or (NO_REQUESTS, NO_REQUESTS)
    return RolloutDecision(
        rollout_id=state.rollout_id,
        model=state.model,
        challenger=state.challenger,
        champion=state.champion,
        action=action,
        from_stage=stage_of(state),
        to_stage=to_stage,
        reason=reason,
        champion_stats=champion,
        challenger_stats=challenger,
        decided_at=now,
    )


def stage_of(state: RolloutState) -> str:
    return "pending" if state.step_index < 0 else state.plan.steps[state.step_index].stage


def leaves_shadow(state: RolloutState) -> bool:
    """Whether the step is the first after the shadow."""
    steps, index = state.plan.steps, state.step_index
    return index > 0 and steps[index - 1].stage == "shadow" and steps[index].stage != "shadow"


def _elapsed_s(state: RolloutState, now: datetime) -> float:
    return (now - state.entered_at).total_seconds()


def _is_new(decision: RolloutDecision, recorded: Sequence[RolloutDecision]) -> bool:
    """Whether a hold says something else than the last decision did, figures apart."""
    last = recorded[-1] if recorded else None
    return last is None or last.action != "hold" or _kind(last.reason) != _kind(decision.reason)


def _kind(reason: str) -> str:
    return re.sub(r"\d[\d.]*(e-\d+)?", "#", reason)
