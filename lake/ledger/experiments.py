"""Experiments in the ledger: rows of `rollouts` whose challenger is a variant of a version, which promote nobody."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, Engine

from lake.ledger.rollout_state import RolloutState
from lake.ledger.rollouts import Rollouts
from lake.ledger.tables import rollouts, versions
from lake.ledger.taints import blocking
from lake.recipe import Experiment

KIND = "experiment"
# Tells a replica under which name it answers and logs; see bentos/serving_config.py.
VARIANT_VARIABLE = "TIDEMILL_VARIANT"
# States of a version whose bento was made, and still is there.
PACKAGED = ("ready", "challenger", "champion", "retired", "rolled_back")


class Experiments:
    def __init__(self, engine: Engine, rollouts_: Rollouts) -> None:
        self._engine, self._rollouts = engine, rollouts_

    def offer(self, experiment: Experiment, *, version: str, tag: str, environment: dict[str, str]) -> RolloutState:
        """Begin an experiment against the present champion: arm b is `version`, served from `tag` with `environment`.

        The variant's name, `<version>-b<number>`, is told by the state's `challenger`; no other experiment of the model
        has had it. One rollout or experiment of a model at a time: raises RolloutUnderWayError while another is,
        CoolingDownError for a while after a rollback, ValueError when the version is not packaged or has seen what was
        erased since, or when the champion is not what arm a asks for.
        """
        model = experiment.model
        with self._engine.begin() as connection:
            champion = connection.scalar(
                select(versions.c.version).where(versions.c.model == model, versions.c.state == "champion")
            )
            if champion is None or experiment.arms.a.version not in (None, champion):
                raise ValueError(
                    f"{champion or 'no version'} of {model} serves, expected {experiment.arms.a.version or 'one'}, as arm a"
                )
            _require_packaged(connection, model, version)
            number = 1 + len(
                connection.execute(
                    select(rollouts.c.rollout_id).where(rollouts.c.model == model, rollouts.c.kind == KIND)
                ).all()
            )
            variant = f"{version}-b{number}"
            begun = self._rollouts.begin_within(connection, model, variant, champion, experiment.plan(), cooled=False)
            told = {
                "rollout_id": f"{model}.{experiment.name}-{number}",  # the dot: no rollout of a version is called so
                "kind": KIND,
                "experiment": experiment.model_dump(mode="json"),
            }
            connection.execute(update(rollouts).where(rollouts.c.rollout_id == begun.rollout_id).values(told))
            named = {**environment, VARIANT_VARIABLE: variant}
            self._rollouts.want_within(connection, model, variant, tag, named)
        return begun.model_copy(update={**told, "experiment": experiment})

    def all(self, model: str | None = None) -> list[RolloutState]:
        """All experiments, or those of one model, oldest first."""
        return [state for state in self._rollouts.of_kind(KIND) if model in (None, state.model)]

    def newest(self, name: str) -> RolloutState | None:
        """The newest experiment by that name; None when there was none."""
        named = [state for state in self.all() if state.experiment is not None and state.experiment.name == name]
        return named[-1] if named else None


def version_of(state: RolloutState) -> str:
    """The version that an experiment's variant serves."""
    return state.challenger.partition("-")[0]


def _require_packaged(connection: Connection, model: str, version: str) -> None:
    state = connection.scalar(select(versions.c.state).where(versions.c.model == model, versions.c.version == version))
    if state not in PACKAGED:
        raise ValueError(f"{model}/{version} is {state or 'unknown'}, expected a packaged version")
    if state != "champion" and blocking(connection, model, version):
        raise ValueError(f"{model}/{version} has seen documents that were erased since, expected a clean version")
