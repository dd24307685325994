"""Committed stages. The unique stage id decides commit races, as not every store has a conditional put."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from lake.ledger.tables import stages


class Stages:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, stage_id: str) -> dict[str, Any] | None:
        """The record that the stage committed, or None."""
        with self._engine.connect() as connection:
            return connection.scalar(select(stages.c.record).where(stages.c.stage_id == stage_id))

    def commit(
        self, *, stage_id: str, stage: str, model: str, manifest_key: str, record: dict[str, Any], duration_s: float
    ) -> bool:
        """Enter a stage as done. False when another process committed it first: its outputs count, not ours."""
        try:
            with self._engine.begin() as connection:
                connection.execute(
                    stages.insert().values(
                        stage_id=stage_id,
                        stage=stage,
                        model=model,
                        manifest_key=manifest_key,
                        record=record,
                        committed_at=datetime.now(UTC),
                        duration_s=duration_s,
                    )
                )
        except IntegrityError:
            return False
        return True

    def records(self, stage: str, model: str) -> list[dict[str, Any]]:
        """All records of one stage of a model, oldest first."""
        with self._engine.connect() as connection:
            return list(
                connection.scalars(
                    select(stages.c.record)
                    .where(stages.c.stage == stage, stages.c.model == model)
                    .order_by(stages.c.committed_at)
                )
            )

    def durations(self, model: str) -> list[tuple[str, str, float]]:
        """`(stage, stage_id, seconds)` of every committed stage of a model, in order."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(stages.c.stage, stages.c.stage_id, stages.c.duration_s)
                .where(stages.c.model == model)
                .order_by(stages.c.committed_at)
            )
            return [(row.stage, row.stage_id, row.duration_s) for row in rows]
