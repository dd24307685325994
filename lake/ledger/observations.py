"""What others have seen of a rollout: values that the gateway cannot count, and the looks that its plots are drawn from."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.engine import Engine

from lake.ledger.rollout_state import Observations
from lake.ledger.tables import rollout_looks, rollout_observations
from lake.records import RolloutLook


class RolloutObservations:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, rollout_id: str, seen: Observations) -> int:
        """Enter values; returns the number of the entry. The controller reads every entry once, in this order."""
        entry = rollout_observations.insert().values(
            rollout_id=rollout_id, step_index=seen.step_index, metric=seen.metric, record=seen.model_dump(mode="json")
        )
        with self._engine.begin() as connection:
            return int(connection.execute(entry.returning(rollout_observations.c.id)).scalar_one())

    def after(self, rollout_id: str, number: int, limit: int = 1000) -> list[tuple[int, Observations]]:
        """Entries with a number above `number`, oldest first."""
        query = (
            select(rollout_observations.c.id, rollout_observations.c.record)
            .where(rollout_observations.c.rollout_id == rollout_id, rollout_observations.c.id > number)
            .order_by(rollout_observations.c.id)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [(row.id, Observations.model_validate(row.record)) for row in connection.execute(query)]

    def newest(self, rollout_id: str) -> int:
        """The number of the rollout's last entry, 0 when there is none."""
        query = select(func.max(rollout_observations.c.id)).where(rollout_observations.c.rollout_id == rollout_id)
        with self._engine.connect() as connection:
            return connection.scalar(query) or 0


class RolloutLooks:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, look: RolloutLook) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                rollout_looks.insert().values(rollout_id=look.rollout_id, record=look.model_dump(mode="json"))
            )

    def of(self, rollout_id: str) -> list[RolloutLook]:
        """All looks of a rollout, oldest first."""
        query = (
            select(rollout_looks.c.record).where(rollout_looks.c.rollout_id == rollout_id).order_by(rollout_looks.c.id)
        )
        with self._engine.connect() as connection:  # read first: nobody waits for what is made of it
            records = connection.scalars(query).all()
        return [RolloutLook.model_validate(record) for record in records]

    def last(self, rollout_id: str) -> RolloutLook | None:
        query = (
            select(rollout_looks.c.record)
            .where(rollout_looks.c.rollout_id == rollout_id)
            .order_by(rollout_looks.c.id.desc())
            .limit(1)
        )
        with self._engine.connect() as connection:
            found = connection.scalar(query)
        return RolloutLook.model_validate(found) if found is not None else None
