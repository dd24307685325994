"""Alarms: what an operator should look at. One a subject at a time; cleared when it is over."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select, update
from sqlalchemy.engine import Engine

from lake.ledger.tables import alarms


class Alarm(BaseModel):
    model_config = ConfigDict(frozen=True)

    subject: str
    message: str
    raised_at: datetime
    cleared_at: datetime | None


class Alarms:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def raised(self, subject: str, message: str) -> bool:
        """Raise an alarm, unless there is one about `subject`: its words are renewed then. True when it is new."""
        open_one = (alarms.c.subject == subject) & alarms.c.cleared_at.is_(None)
        with self._engine.begin() as connection:
            renewed = connection.execute(update(alarms).where(open_one).values(message=message))
            if renewed.rowcount == 0:
                connection.execute(
                    alarms.insert().values(subject=subject, message=message, raised_at=datetime.now(UTC))
                )
            return renewed.rowcount == 0

    def cleared(self, subject: str) -> bool:
        """It is over. True when there was one."""
        open_one = (alarms.c.subject == subject) & alarms.c.cleared_at.is_(None)
        with self._engine.begin() as connection:
            return connection.execute(update(alarms).where(open_one).values(cleared_at=datetime.now(UTC))).rowcount > 0

    def open(self) -> list[Alarm]:
        return self._select(alarms.c.cleared_at.is_(None))

    def all(self) -> list[Alarm]:
        """Oldest first."""
        return self._select(alarms.c.id > 0)

    def _select(self, condition: object) -> list[Alarm]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(alarms).where(condition).order_by(alarms.c.id))  # type: ignore[arg-type]
            return [Alarm.model_validate(dict(row._mapping)) for row in rows]
