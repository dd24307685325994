"""Rollouts, their decisions, and the replicas that should be running."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import delete, select, update
from sqlalchemy.engine import Engine

from lake.ledger.tables import replicas, rollout_decisions, rollouts
from lake.recipe import Rollout as RolloutPlan
from lake.records import RolloutDecision


class Replica(BaseModel):
    """A server process that should be running: what to serve, where, with which extra environment."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: str
    tag: str
    port: int
    environment: dict[str, str]


class RolloutState(BaseModel):
    """One rollout. `step_index` is -1 until the challenger is ready; `baseline` are counters at the step's start."""

    model_config = ConfigDict(frozen=True)

    rollout_id: str
    model: str
    challenger: str
    champion: str | None
    plan: RolloutPlan
    step_index: int
    state: str
    baseline: dict[str, Any] | None
    started_at: datetime
    entered_at: datetime


class Rollouts:
    def __init__(self, engine: Engine, replica_port_first: int) -> None:
        self._engine = engine
        self._port_first = replica_port_first

    def start(self, *, model: str, challenger: str, champion: str | None, plan: RolloutPlan) -> RolloutState:
        """Begin a rollout, or return the one that is under way for this very challenger.

        Raises ValueError when another challenger of the model is under way.
        """
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            running = connection.execute(
                select(rollouts).where(rollouts.c.model == model, rollouts.c.state == "running")
            ).first()
            if running is not None:
                if running.challenger != challenger:
                    raise ValueError(f"rollout of {model}/{running.challenger} is under way, expected none")
                return RolloutState.model_validate(dict(running._mapping))
            earlier = connection.execute(
                select(rollouts.c.rollout_id).where(rollouts.c.model == model, rollouts.c.challenger == challenger)
            ).all()
            row = {
                "rollout_id": f"{model}-{challenger}-{len(earlier) + 1}",
                "model": model,
                "challenger": challenger,
                "champion": champion,
                "plan": plan.model_dump(mode="json"),
                "step_index": -1,
                "state": "running",
                "baseline": None,
                "started_at": now,
                "entered_at": now,
            }
            connection.execute(rollouts.insert().values(row))
        return RolloutState.model_validate(row)

    def running(self) -> list[RolloutState]:
        return self._select(rollouts.c.state == "running")

    def of_model(self, model: str) -> list[RolloutState]:
        """All rollouts of a model, oldest first."""
        return self._select(rollouts.c.model == model)

    def get(self, rollout_id: str) -> RolloutState | None:
        found = self._select(rollouts.c.rollout_id == rollout_id)
        return found[0] if found else None

    def enter_step(self, rollout_id: str, expected: int, step_index: int, baseline: dict[str, Any] | None) -> bool:
        """Compare-and-set of the step; also used to restart a step's counters (`expected == step_index`)."""
        with self._engine.begin() as connection:
            result = connection.execute(
                update(rollouts)
                .where(
                    rollouts.c.rollout_id == rollout_id,
                    rollouts.c.step_index == expected,
                    rollouts.c.state == "running",
                )
                .values(step_index=step_index, baseline=baseline, entered_at=datetime.now(UTC))
            )
            return result.rowcount == 1

    def finish(self, rollout_id: str, state: str) -> bool:
        """Compare-and-set from running to `promoted` or `rolled_back`."""
        with self._engine.begin() as connection:
            result = connection.execute(
                update(rollouts)
                .where(rollouts.c.rollout_id == rollout_id, rollouts.c.state == "running")
                .values(state=state)
            )
            return result.rowcount == 1

    def record(self, decision: RolloutDecision) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                rollout_decisions.insert().values(
                    rollout_id=decision.rollout_id,
                    record=decision.model_dump(mode="json"),
                    decided_at=decision.decided_at,
                )
            )

    def decisions(self, rollout_id: str) -> list[RolloutDecision]:
        """All recorded decisions of a rollout, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.scalars(
                select(rollout_decisions.c.record)
                .where(rollout_decisions.c.rollout_id == rollout_id)
                .order_by(rollout_decisions.c.id)
            )
            return [RolloutDecision.model_validate(row) for row in rows]

    def want_replica(self, *, model: str, version: str, tag: str, environment: dict[str, str]) -> Replica:
        """Ask for a replica; it gets the lowest free port. Asking again changes tag and environment, not the port."""
        with self._engine.begin() as connection:
            found = connection.execute(
                select(replicas).where(replicas.c.model == model, replicas.c.version == version)
            ).first()
            if found is None:
                taken = set(connection.scalars(select(replicas.c.port)))
                port = next(p for p in range(self._port_first, 65536) if p not in taken)
                connection.execute(
                    replicas.insert().values(model=model, version=version, tag=tag, port=port, environment=environment)
                )
            else:
                port = found.port
                connection.execute(
                    update(replicas)
                    .where(replicas.c.model == model, replicas.c.version == version)
                    .values(tag=tag, environment=environment)
                )
        return Replica(model=model, version=version, tag=tag, port=port, environment=environment)

    def drop_replica(self, model: str, version: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(delete(replicas).where(replicas.c.model == model, replicas.c.version == version))

    def wanted_replicas(self) -> list[Replica]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(replicas).order_by(replicas.c.port))
            return [Replica.model_validate(dict(row._mapping)) for row in rows]

    def _select(self, condition: Any) -> list[RolloutState]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(rollouts).where(condition).order_by(rollouts.c.started_at))
            return [RolloutState.model_validate(dict(row._mapping)) for row in rows]
