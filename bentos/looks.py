"""Which looks at a rollout are kept for its plots: one every few seconds, and every one that changes something. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from bentos.counters import stats_of
from bentos.moves import Move
from lake.ledger.rollout_state import RolloutState
from lake.records import RolloutLook

# A rollout of a day then has some thousands of looks; those of its first minutes are as dense as anyone can see.
EVERY_S = 5.0
GROWTH = 1.02


@dataclass
class Looks:
    """Remembers when a rollout's last look was kept; forgetting it costs a look too many."""

    _next_s: dict[tuple[str, int], float] = field(default_factory=dict)

    def due(self, state: RolloutState, move: Move) -> RolloutLook | None:
        """The look as a record, if it is time for one: after EVERY_S at first, ever less often within a step."""
        evidence, decision, step = move.looked, move.decision, state.step
        if evidence is None or decision is None or step is None:
            return None
        key = (state.rollout_id, state.step_index)
        if move.kind == "weigh" and not move.is_news and evidence.elapsed_s < self._next_s.get(key, 0.0):
            return None
        self._next_s[key] = max(evidence.elapsed_s + EVERY_S, evidence.elapsed_s * GROWTH)
        return RolloutLook(
            rollout_id=state.rollout_id,
            step_index=state.step_index,
            stage=step.stage,
            share=step.share,
            elapsed_s=evidence.elapsed_s,
            looked_at=decision.decided_at,
            champion_stats=stats_of(evidence.champion),
            challenger_stats=stats_of(evidence.challenger),
            checks=decision.checks,
            split=decision.split,
        )
