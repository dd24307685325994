"""One rollout as it is to be shown: read from the ledger once, the same for the terminal, the page and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bentos.lease import NAME, STANDSTILL_S
from flows import rollout_words as words
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.alarms import Alarm
from lake.ledger.leases import Lease
from lake.ledger.rollout_state import RolloutState
from lake.process_owner import is_gone
from lake.records import CheckResult, RolloutDecision, RolloutLook


class Pulse:
    """Whether the controller lives, told by its lease's beat as this process sees it: no clock of another is compared."""

    def __init__(self) -> None:
        self._beat: tuple[int, int] | None = None
        self._moved_at_s = 0.0

    def seen(self, lease: Lease | None, now_s: float) -> str:
        """To be read after the word controller, at `now_s` of a monotonic clock."""
        if lease is None or lease.holder is None:
            return "NO controller holds the lease: nothing moves until one is started ('tidemill up')"
        if is_gone(lease.holder):
            return f"NO controller: {lease.holder} has ended; another one takes the lease over"
        beat = (lease.token, lease.beat)
        if beat != self._beat:
            self._beat, self._moved_at_s = beat, now_s
        still_s = now_s - self._moved_at_s
        if still_s > STANDSTILL_S:
            return f"{lease.holder} STANDS STILL for {words.duration_in_words(still_s)}"
        return f"{lease.holder} holds the lease"


@dataclass(frozen=True)
class RolloutView:
    """A rollout with all that was decided and seen. `looks` are in order; `lease` is the controller's."""

    state: RolloutState
    decisions: tuple[RolloutDecision, ...]
    looks: tuple[RolloutLook, ...]
    alarms: tuple[Alarm, ...]
    lease: Lease | None
    seen_at: datetime

    @property
    def look(self) -> RolloutLook | None:
        return self.looks[-1] if self.looks else None

    @property
    def checks(self) -> tuple[CheckResult, ...]:
        """As they stand: those of the last look, or of the last decision where no look was kept."""
        if self.look is not None:
            return self.look.checks
        return next((decision.checks for decision in reversed(self.decisions) if decision.checks), ())

    @property
    def ended_at(self) -> datetime | None:
        """None while it is under way."""
        if self.state.state == "running":
            return None
        return self.state.ended_at or (self.decisions[-1].decided_at if self.decisions else self.state.entered_at)

    @property
    def reason(self) -> str:
        """Of the last decision."""
        return self.decisions[-1].reason if self.decisions else "nothing was decided yet"


def read_view(ledger: Ledger, rollout_id: str, looks: Sequence[RolloutLook] | None = None) -> RolloutView:
    """Read a rollout. `looks` spares reading them from the ledger. Raises TidemillError when there is none by this id."""
    state = ledger.rollouts.get(rollout_id)
    if state is None:
        raise unknown(ledger, rollout_id)
    return RolloutView(
        state=state,
        decisions=tuple(ledger.rollouts.decisions(rollout_id)),
        looks=tuple(ledger.rollout_looks.of(rollout_id) if looks is None else looks),
        alarms=tuple(ledger.alarms.open()),
        lease=ledger.leases.get(NAME),
        seen_at=datetime.now(UTC),
    )


def unknown(ledger: Ledger, rollout_id: str) -> TidemillError:
    newest = [state.rollout_id for state in all_rollouts(ledger)[-5:]]
    return TidemillError(
        f"rollout {rollout_id}",
        expected=f"a rollout such as {', '.join(newest)}" if newest else "a rollout",
        got="none by this id" if newest else "none at all; the first packaged version of a model begins one",
        remedy="'tidemill rollout' lists them all",
    )


def all_rollouts(ledger: Ledger, model: str | None = None) -> list[RolloutState]:
    """Every rollout of a model, or of all models, oldest first."""
    models = {model} if model else {version.model for version in ledger.versions.all()}
    found = [state for name in models for state in ledger.rollouts.of_model(name)]
    return sorted(found, key=lambda state: (state.started_at, state.rollout_id))


def current(ledger: Ledger, model: str | None) -> RolloutState:
    """The newest rollout under way, or the newest of all when none is. Raises TidemillError when there is none."""
    found = all_rollouts(ledger, model)
    if not found:
        raise TidemillError(
            f"rollout of {model}" if model else "rollout",
            expected="a rollout, under way or ended",
            got="none at all",
            remedy="a version that passes its gate begins one; 'tidemill rollout start MODEL VERSION' offers one again",
        )
    return next((state for state in reversed(found) if state.state == "running"), found[-1])


def thinned(looks: Sequence[RolloutLook], most: int = 240) -> list[RolloutLook]:
    """At most about `most` looks, evenly: every step's first and last are among them, so no transition is lost."""
    if len(looks) <= most:
        return list(looks)
    stride = len(looks) / most
    kept = {int(number * stride) for number in range(most)} | {len(looks) - 1}
    for number in range(1, len(looks)):
        if looks[number].step_index != looks[number - 1].step_index:
            kept |= {number - 1, number}
    return [looks[number] for number in sorted(kept)]


def as_json(view: RolloutView, most_looks: int = 240) -> dict[str, Any]:
    """All of it as JSON, in names that stay: for scripts, for `decisions.json` and for the status server."""
    state = view.state
    return {
        "rollout_id": state.rollout_id,
        "model": state.model,
        "kind": state.kind,
        "challenger": state.challenger,
        "champion": state.champion,
        "state": state.state,
        "stage": words.stage_of(state),
        "step_index": state.step_index,
        "approved_step": state.approved_step,
        "started_at": state.started_at.isoformat(),
        "entered_at": state.entered_at.isoformat(),
        "ended_at": view.ended_at.isoformat() if view.ended_at else None,
        "seen_at": view.seen_at.isoformat(),
        "reason": view.reason,
        "controller": view.lease.holder if view.lease else None,
        "plan": state.plan.model_dump(mode="json"),
        "checks": [check.model_dump(mode="json") for check in view.checks],
        "decisions": [decision.model_dump(mode="json") for decision in view.decisions],
        "looks": [look.model_dump(mode="json") for look in thinned(view.looks, most_looks)],
        "alarms": [alarm.model_dump(mode="json") for alarm in view.alarms],
    }
