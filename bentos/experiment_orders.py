"""What operators may order of an experiment: begin, end. The controller does the rest."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

from bentos.moves import rolled_back
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.rollout_state import CoolingDownError, RolloutState, RolloutUnderWayError
from lake.recipe import Arm, Experiment


def environment_of(arm: Arm) -> dict[str, str]:
    """The variables that make a replica serve as the arm says; `bentos.serving_config` reads them."""
    told = {f"TIDEMILL_{name.upper()}": str(value) for name, value in arm.sampling if value is not None}
    if arm.system_prompt is not None:
        told["TIDEMILL_SYSTEM_PROMPT"] = quote(arm.system_prompt)
    return told


def begin_experiment(ledger: Ledger, experiment: Experiment, *, version: str, tag: str) -> RolloutState:
    """Give arm b its share of the model's traffic: a replica of `version`, served from the bento `tag`.

    Raises TidemillError when a rollout or another experiment of the model is under way, when the model cools down after
    a rollback, or when the ledger has no such version that may serve.
    """
    where = f"experiment {experiment.name} of {experiment.model}"
    try:
        return ledger.experiments.offer(
            experiment, version=version, tag=tag, environment=environment_of(experiment.arms.b)
        )
    except RolloutUnderWayError as error:
        running = error.running
        stop = f"experiment stop {running.experiment.name}" if running.experiment else f"rollout back {running.model}"
        raise TidemillError(
            where,
            expected="no rollout and no other experiment of the model under way",
            got=f"{'rollout' if running.kind == 'release' else running.kind} {running.rollout_id}",
            remedy=f"wait for its end, or end it: 'tidemill {stop}'",
        ) from error
    except CoolingDownError as error:
        raise TidemillError(
            where,
            expected="a model that does not cool down after a rollback",
            got=str(error),
            remedy=f"start it again in {error.left_s:.0f} s",
        ) from error
    except ValueError as error:
        raise TidemillError(
            where,
            expected="arm a as it serves, and a packaged version for arm b",
            got=str(error),
            remedy="'tidemill models' lists the versions and their states",
        ) from error


def end_experiment(ledger: Ledger, name: str, reason: str) -> RolloutState:
    """End an experiment: the champion has all traffic from the controller's next tick on. Returns it as it was.

    Raises TidemillError when none by that name is under way.
    """
    state = ledger.experiments.newest(name)
    if state is not None and state.state == "running":
        decision = rolled_back(state, reason, datetime.now(UTC))
        ledger.rollouts.finish(state.rollout_id, "ended", decision, cool_down=False)
        return state
    running = [
        found.experiment.name for found in ledger.experiments.all() if found.state == "running" and found.experiment
    ]
    raise TidemillError(
        f"experiment {name}",
        expected=f"one that is under way: {', '.join(running) or 'there is none'}",
        got=f"{state.rollout_id}, which has ended" if state else "none by that name",
        remedy="'tidemill experiment show' lists them",
    )
