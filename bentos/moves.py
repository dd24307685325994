"""What to do next with a rollout, from its state, its challenger's health and its evidence. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import ValidationError

from bentos import experiment
from bentos.counters import Snapshot
from bentos.evidence import Evidence, entered, taken_in
from bentos.health import Verdict
from bentos.rollout import decide, decision_of, next_stage
from lake.ledger.rollout_state import Observations, RolloutState
from lake.records import RolloutDecision

Kind = Literal["wait", "enter", "weigh", "finish"]


@dataclass(frozen=True)
class Move:
    """One act on the ledger.

    `wait`: none. `enter`: go to step `step_index`. `weigh`: keep the evidence and stay. `finish`: end with the decision's
    action. `evidence` is kept and `decision` recorded with the act; a hold is only recorded when it `is_news`. `looked` is
    the evidence that the decision rests on.
    """

    kind: Kind
    step_index: int = -1
    evidence: Evidence | None = None
    decision: RolloutDecision | None = None
    is_news: bool = True
    looked: Evidence | None = None


def next_move(
    state: RolloutState,
    *,
    health: tuple[Verdict, str],
    now_stats: Snapshot | None,
    seen: Sequence[tuple[int, Observations]],
    recorded: Sequence[RolloutDecision],
    now: datetime,
) -> Move:
    """The next act on a running rollout.

    `now_stats` is None while the gateway does not answer: only the challenger's death is acted on then. `seen` are the
    entries of others since the last look, `recorded` the rollout's decisions so far.
    """
    if state.step is None:
        return _before_first_step(state, health, now)
    evidence = evidence_of(state)
    if health[0] == "gone":
        reason = f"{state.challenger} has no ready endpoint: {health[1]}"
        return Move("finish", decision=rolled_back(state, reason, now))
    if now_stats is None or evidence.snapshot is None or health[0] == "starting":
        return Move("wait")
    looked = taken_in(
        evidence,
        now_stats,
        model=state.model,
        champion=str(state.champion),
        challenger=state.challenger,
        step_index=state.step_index,
        step=state.step,
        checks=state.plan.checks,
        seen=seen,
    )
    if looked is None:  # the gateway began to count anew: from here on, then; what was seen stays
        return Move("weigh", evidence=counted_from(evidence, now_stats, state))
    decision = (experiment.decide if state.kind == "experiment" else decide)(state, looked, decided_at=now)
    if decision.action in ("roll_back", "end"):
        return Move("finish", decision=decision, looked=looked)
    if decision.action == "promote":
        following = state.step_index + 1
        if following == len(state.plan.steps):
            return Move("finish", decision=decision, looked=looked)
        return Move("enter", following, entered(looked, state.plan.steps[following]), decision, looked=looked)
    return Move("weigh", evidence=looked, decision=decision, is_news=_is_new(decision, recorded), looked=looked)


def evidence_of(state: RolloutState) -> Evidence:
    """The evidence that the ledger keeps. What another version of this code has written and this one cannot read is
    lost, the rollout is not: its step begins to count anew."""
    if state.evidence is None:
        return Evidence()
    try:
        return Evidence.model_validate(state.evidence)
    except ValidationError:
        observed = state.evidence.get("observed", 0)
        kept = Evidence(observed=observed if isinstance(observed, int) else 0)
        return kept if state.step is None else entered(kept, state.step)


def counted_from(evidence: Evidence, snapshot: Snapshot, state: RolloutState) -> Evidence:
    """The same, counting from this snapshot on."""
    return evidence.model_copy(update={"snapshot": snapshot.only(state.model, (state.champion, state.challenger))})


def rolled_back(state: RolloutState, reason: str, now: datetime) -> RolloutDecision:
    """The decision to roll back for a reason that lies outside the evidence; an experiment just ends."""
    if state.kind == "experiment":
        return decision_of(state, "end", "ended", reason, now, evidence_of(state))
    return decision_of(state, "roll_back", "rolled_back", reason, now, evidence_of(state))


def leaves_shadow(state: RolloutState) -> bool:
    """Whether the step is the first after the shadow."""
    steps, index = state.plan.steps, state.step_index
    return index > 0 and steps[index - 1].stage == "shadow" and steps[index].stage != "shadow"


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
        return Move("finish", decision=decision_of(state, "promote", "full", reason, now))
    if not state.plan.steps:
        reason = f"{ready}; the plan has no steps"
        return Move("finish", decision=decision_of(state, "promote", "full", reason, now))
    reason = f"{ready}; it challenges {state.champion}"
    decision = decision_of(state, "start", next_stage(state), reason, now)
    return Move("enter", 0, entered(Evidence(), state.plan.steps[0]), decision)


def _is_new(decision: RolloutDecision, recorded: Sequence[RolloutDecision]) -> bool:
    """Whether a hold says something else than the last decision did, figures apart."""
    last = recorded[-1] if recorded else None
    return last is None or last.action != "hold" or _kind(last.reason) != _kind(decision.reason)


def _kind(reason: str) -> str:
    return re.sub(r"[-+]?\d[\d.]*(e-\d+)?", "#", reason)
