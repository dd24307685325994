"""What flows and operators may order of a rollout: begin, approve, roll back, undo. The controller does the rest."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from bentos.health import READY_TIMEOUT_S
from bentos.moves import rolled_back
from bentos.rollout import decision_of
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.rollout_state import CoolingDownError, RolloutState, RolloutUnderWayError
from lake.recipe import Rollout as RolloutPlan
from lake.settings import Settings

POLL_S = 1.0
# What is in flight when a version leaves the routes may end on it; a stream of tokens takes seconds.
DRAIN_TIMEOUT_S = 60.0
INJECT_VARIABLE = "TIDEMILL_INJECT_ERROR_RATE"

log = logging.getLogger("rollouts")


def begin_rollout(
    settings: Settings,
    ledger: Ledger,
    *,
    model: str,
    version: str,
    tag: str,
    plan: RolloutPlan,
    inject_error_rate: float = 0.0,
) -> RolloutState:
    """Offer a version to the model's traffic; the controller does the rest. Safe to repeat: it begins only once.

    While another challenger of the model is under way, this waits for its end, as long as its plan may take at most;
    after a rollback, until the model has cooled down. Raises TidemillError when that did not suffice, or when the
    version already serves or is not in the ledger.
    """
    environment = {INJECT_VARIABLE: str(inject_error_rate)} if inject_error_rate > 0 else {}
    told: str | None = None
    cooled = False
    while True:
        try:
            return ledger.rollouts.offer(
                model=model, challenger=version, plan=plan, tag=tag, environment=environment, cooled=cooled
            )
        except CoolingDownError as error:
            log.info("%s %s waits: %s", model, version, error)
            time.sleep(error.left_s)
            cooled = True  # by this process's own clock, whatever the other one says by now
        except RolloutUnderWayError as error:
            _require_patience(settings, error.running, version)
            cooled = False  # it may end in a rollback of its own
            if told != error.running.rollout_id:
                log.info("%s %s waits for the end of rollout %s", model, version, error.running.rollout_id)
                told = error.running.rollout_id
            time.sleep(POLL_S)
        except ValueError as error:
            raise TidemillError(
                f"rollout of {model} {version}",
                expected="a packaged version that does not serve yet",
                got=str(error),
                remedy="'tidemill models' lists the versions and their states",
            ) from error


def longest_s(plan: RolloutPlan) -> float:
    """The longest that a rollout by this plan takes: every step up to its limit, replica start and slack included."""
    return READY_TIMEOUT_S + sum(step.max_duration_s + DRAIN_TIMEOUT_S for step in plan.steps)


def approve(ledger: Ledger, model: str) -> RolloutState:
    """Let the model's rollout go beyond the step that it is in, once everything else there is as it should be.

    Returns the rollout. Raises TidemillError when none is within a step that pauses for approval.
    """
    for state in ledger.rollouts.running():
        pauses = state.model == model and state.step is not None and state.step.pause == "approval"
        if pauses and ledger.rollouts.approve(state.rollout_id, state.step_index):
            return state
    raise TidemillError(
        f"approval for {model}",
        expected="a rollout within a step that pauses for approval",
        got=_last_in_words(ledger, model),
        remedy=f"'tidemill rollout watch {model}' shows where it is",
    )


def request_rollback(ledger: Ledger, model: str, reason: str) -> None:
    """End the rollout that is under way: the champion gets all traffic at the controller's next tick.

    Asking twice at the same time is harmless. Raises TidemillError when no rollout of the model is under way.
    """
    running = [state for state in ledger.rollouts.running() if state.model == model]
    for state in running:
        decision = rolled_back(state, reason, datetime.now(UTC))
        outcome = "ended" if state.kind == "experiment" else "rolled_back"
        ledger.rollouts.finish(state.rollout_id, outcome, decision, cool_down=False)
    ended = [ledger.rollouts.get(state.rollout_id) for state in running]
    if any(state is not None and state.state in ("rolled_back", "ended") for state in ended):
        return
    raise TidemillError(
        f"rollback of {model}",
        expected="a rollout under way",
        got=_last_in_words(ledger, model),
        remedy=f"'tidemill rollout --model {model}' shows them; 'tidemill rollout undo {model}' takes back one that was "
        "promoted, 'tidemill rollout start' offers an earlier version again",
    )


def undo(ledger: Ledger, model: str, reason: str) -> RolloutState:
    """Give all traffic back to the champion that the last rollout has replaced. Returns that rollout.

    At once where its replica is still kept (`retain_champion_s`); else it is started, and gets the traffic when it is
    ready. A rollout under way ends first. Raises TidemillError when there is nothing to take back.
    """
    last = next((state for state in reversed(ledger.rollouts.of_model(model)) if state.state == "promoted"), None)
    champion = ledger.versions.champion(model)
    if last is None or last.champion is None or champion is None or champion.version != last.challenger:
        raise TidemillError(
            f"undo for {model}",
            expected="a champion that came by a rollout and replaced another one",
            got=_last_in_words(ledger, model),
            remedy=f"'tidemill rollout start {model} VERSION' offers an earlier version",
        )
    if any(state.model == model for state in ledger.rollouts.running()):
        request_rollback(ledger, model, reason)
    decision = decision_of(last, "roll_back", "rolled_back", reason, datetime.now(UTC))
    decision = decision.model_copy(update={"from_stage": "full"})
    if not ledger.rollouts.undo(last, decision):
        now = ledger.versions.champion(model)
        if now is None or now.version != last.challenger:  # somebody was faster: with an undo, or a promotion
            return last
        at_once = last.plan.model_copy(update={"steps": ()})
        try:
            ledger.rollouts.offer(
                model=model, challenger=last.champion, plan=at_once, tag=f"{model}:{last.champion}", environment={},
                cooled=True,
            )  # fmt: skip
        except ValueError as error:
            raise TidemillError(
                f"undo for {model}",
                expected=f"{last.champion}, which can serve again",
                got=str(error),
                remedy=f"'tidemill rollout start {model} VERSION' offers another one",
            ) from error
    return last


def _require_patience(settings: Settings, other: RolloutState, version: str) -> None:
    waited_s = (datetime.now(UTC) - other.started_at).total_seconds()
    if waited_s > longest_s(other.plan):
        raise TidemillError(
            f"rollout of {other.model} {version}",
            expected=f"the rollout of {other.challenger} to end within {longest_s(other.plan):.0f} s",
            got=f"still {other.state} after {waited_s:.0f} s",
            remedy=f"see {settings.home}/logs/controller.log; 'tidemill rollout back {other.model}' ends it, then "
            f"'tidemill rollout start {other.model} {version}'",
        )


def _last_in_words(ledger: Ledger, model: str) -> str:
    newest = next(reversed(ledger.rollouts.of_model(model)), None)
    return f"none; the last one, {newest.rollout_id}, is {newest.state}" if newest else "no rollout at all"
