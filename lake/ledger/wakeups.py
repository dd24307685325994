"""Wake-ups: keys that an event has named, kept until the listing was asked about them. Never more than a hint."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.engine import Engine

from lake.ledger.tables import wakeups

MAX_KEY_CHARACTERS = 1_024  # S3 allows as many bytes
Source = Literal["sqs", "webhook"]


class Wakeup(NamedTuple):
    """`key` as the listing shows it: decoded. `number` grows with the order of arrival."""

    number: int
    bucket: str
    key: str


class Wakeups:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, named: Iterable[tuple[str, str]], source: Source) -> int:
        """Keep `(bucket, key)` pairs until they are taken up; durable on return. Returns how many.

        A key longer than any object can have is left out: no listing would show it.
        """
        now = datetime.now(UTC)
        rows = [
            {"bucket": bucket, "key": key, "source": source, "received_at": now}
            for bucket, key in named
            if len(key) <= MAX_KEY_CHARACTERS
        ]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(wakeups.insert(), rows)
        return len(rows)

    def pending(self, limit: int = 10_000) -> list[Wakeup]:
        """The oldest wake-ups that no listing has answered yet."""
        query = select(wakeups.c.id, wakeups.c.bucket, wakeups.c.key).order_by(wakeups.c.id).limit(limit)
        with self._engine.connect() as connection:
            return [Wakeup(*row) for row in connection.execute(query)]

    def forget(self, numbers: Iterable[int]) -> None:
        """These have been answered by a listing that began after they came."""
        ids = list(numbers)
        if not ids:
            return
        with self._engine.begin() as connection:
            for start in range(0, len(ids), 500):
                connection.execute(delete(wakeups).where(wakeups.c.id.in_(ids[start : start + 500])))
