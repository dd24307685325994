"""Start an experiment: what arm b needs is packaged first, then it has its share of the traffic."""

from __future__ import annotations

from flows.context import Context
from flows.precisions import packaged_as
from flows.tasks import bento_of
from lake.errors import TidemillError
from lake.ledger.rollout_state import RolloutState
from lake.ledger.versions import Version
from lake.recipe import Experiment


def start(context: Context, experiment: Experiment) -> RolloutState:
    """Begin the experiment; packages another precision first, which takes minutes. The champion serves on meanwhile.

    Raises TidemillError when a version is not packaged, when a metric can never be told, or for what
    `begin_experiment` refuses.
    """
    from bentos.experiment_orders import begin_experiment
    from bentos.package import VARIANTS

    _require_log(context, experiment)
    arm, version = experiment.arms.b, _version(context, experiment)
    bento = bento_of(context, experiment.model, version.version)
    if bento is None:
        raise _unpackaged(experiment, version.version, version.state)
    precision = bento.labels.get("variant", "int8")
    # One that was built before there were variants cannot serve as one: it would take no notice of arm b.
    if (arm.precision or precision) != precision or bento.labels.get(VARIANTS) != "yes":
        bento = packaged_as(context, version, arm.precision or ("fp32" if precision == "fp32" else "int8"))
    return begin_experiment(context.ledger, experiment, version=version.version, tag=bento.tag)


def _version(context: Context, experiment: Experiment) -> Version:
    """The version that arm b is of: the one it names, or the champion."""
    name = experiment.arms.b.version
    versions = context.ledger.versions
    found = versions.get(experiment.model, name) if name else versions.champion(experiment.model)
    if found is None:
        raise _unpackaged(experiment, name or "a champion", "unknown")
    return found


def _require_log(context: Context, experiment: Experiment) -> None:
    untold = [compared.metric for compared in experiment.metrics if compared.check().of.needs_log]
    if untold and context.recipe(experiment.model).monitoring.log_share == 0:
        raise TidemillError(
            f"experiment {experiment.name}",
            expected=f"a prediction log, for {', '.join(untold)}",
            got="none: monitoring.log_share of the recipe is 0",
            remedy="leave the metric out, or log a share of the answers",
        )


def _unpackaged(experiment: Experiment, version: str, state: str) -> TidemillError:
    return TidemillError(
        f"experiment {experiment.name}, arm b",
        expected=f"a packaged version of {experiment.model}",
        got=f"{version}, which is {state}",
        remedy="'tidemill models' lists the versions and their states",
    )
