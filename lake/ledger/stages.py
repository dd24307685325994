"""Committed stages. The unique stage id decides commit races, as not every store has a conditional put."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.engine import Connection, Engine

from lake.layout import manifest_key
from lake.ledger.tables import stage_attempts, stages


class StageAttempt(BaseModel):
    """One process' try at a stage, in a folder of its own: `prefix`. Only an `open` one can be committed."""

    model_config = ConfigDict(frozen=True)

    stage_id: str
    number: int
    model: str
    subject: str | None
    prefix: str
    state: str
    started_at: datetime


class Stages:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, stage_id: str) -> dict[str, Any] | None:
        """The record that the stage committed, or None."""
        with self._engine.connect() as connection:
            return connection.scalar(select(stages.c.record).where(stages.c.stage_id == stage_id))

    def begin(self, stage_id: str, model: str, folder: str, subject: str | None = None) -> StageAttempt | None:
        """Take a stage over: earlier attempts, dead or merely paused, cannot be committed any more.

        None when it is committed. The first attempt writes to `folder`, the next one to `folder.2`, and so on, never
        where another has written: a process that wakes up after it was taken for dead writes where nobody reads. Attempts
        at other stages of the same `subject` are superseded, too.
        """
        with self._engine.begin() as connection:
            if connection.scalar(select(stages.c.stage_id).where(stages.c.stage_id == stage_id)) is not None:
                return None
            this = stage_attempts.c.stage_id == stage_id
            number = 1 + (connection.scalar(select(func.max(stage_attempts.c.number)).where(this)) or 0)
            rivals = this if subject is None else or_(this, stage_attempts.c.subject == subject)
            connection.execute(
                update(stage_attempts).where(rivals, stage_attempts.c.state == "open").values(state="superseded")
            )
            attempt = StageAttempt(
                stage_id=stage_id,
                number=number,
                model=model,
                subject=subject,
                prefix=_free_prefix(connection, folder),
                state="open",
                started_at=datetime.now(UTC),
            )
            connection.execute(stage_attempts.insert().values(attempt.model_dump()))
        return attempt

    def commit(
        self,
        attempt: StageAttempt,
        *,
        stage: str,
        manifest_key: str,
        record: dict[str, Any],
        duration_s: float,
    ) -> bool:
        """Enter a stage as done. False when another attempt has committed it or taken it over: ours does not count."""
        this = (stage_attempts.c.stage_id == attempt.stage_id) & (stage_attempts.c.number == attempt.number)
        with self._engine.begin() as connection:
            taken = connection.execute(
                update(stage_attempts).where(this, stage_attempts.c.state == "open").values(state="committed")
            )
            if taken.rowcount == 0:
                return False
            connection.execute(
                stages.insert().values(
                    stage_id=attempt.stage_id,
                    stage=stage,
                    model=attempt.model,
                    manifest_key=manifest_key,
                    record=record,
                    committed_at=datetime.now(UTC),
                    duration_s=duration_s,
                )
            )
        return True

    def attempts(self, stage_id: str | None = None, state: str | None = None) -> list[StageAttempt]:
        """Attempts, of one stage or in one state, oldest first."""
        query = select(stage_attempts).order_by(stage_attempts.c.started_at, stage_attempts.c.number)
        if stage_id is not None:
            query = query.where(stage_attempts.c.stage_id == stage_id)
        if state is not None:
            query = query.where(stage_attempts.c.state == state)
        with self._engine.connect() as connection:
            return [StageAttempt.model_validate(dict(row._mapping)) for row in connection.execute(query)]

    def forget(self, attempt: StageAttempt) -> None:
        """Drop a swept attempt from the books."""
        this = (stage_attempts.c.stage_id == attempt.stage_id) & (stage_attempts.c.number == attempt.number)
        with self._engine.begin() as connection:
            connection.execute(delete(stage_attempts).where(this, stage_attempts.c.state == "swept"))

    def give_up(self, attempt: StageAttempt, expected: str) -> bool:
        """Mark an attempt as swept, if its state is the expected one: from now on it can never be committed."""
        this = (stage_attempts.c.stage_id == attempt.stage_id) & (stage_attempts.c.number == attempt.number)
        with self._engine.begin() as connection:
            swept = connection.execute(
                update(stage_attempts).where(this, stage_attempts.c.state == expected).values(state="swept")
            )
            return swept.rowcount == 1

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


def _free_prefix(connection: Connection, folder: str) -> str:
    """`folder`, or a numbered one beside it, that no attempt has been given and no committed stage lies in."""
    for number in count(1):
        prefix = folder if number == 1 else f"{folder.removesuffix('/')}.{number}/"
        given = select(stage_attempts.c.stage_id).where(stage_attempts.c.prefix == prefix)
        committed = select(stages.c.stage_id).where(stages.c.manifest_key == manifest_key(prefix))
        if connection.scalar(given) is None and connection.scalar(committed) is None:
            return prefix
    raise AssertionError  # count() does not end
