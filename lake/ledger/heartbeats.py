"""Heartbeats: each process that holds work counts upwards. A clock step moves none of it."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.engine import Engine

from lake.ledger.tables import heartbeats


class Heartbeat(NamedTuple):
    owner: str
    beat: int


class Heartbeats:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def beat(self, owner: str) -> None:
        """One beat more. The first one enters the owner."""
        with self._engine.begin() as connection:
            beaten = connection.execute(
                update(heartbeats).where(heartbeats.c.owner == owner).values(beat=heartbeats.c.beat + 1)
            )
            if beaten.rowcount == 0:
                connection.execute(heartbeats.insert().values(owner=owner, beat=1))

    def all(self) -> list[Heartbeat]:
        query = select(heartbeats.c.owner, heartbeats.c.beat)
        with self._engine.connect() as connection:
            return [Heartbeat(*row) for row in connection.execute(query)]

    def forget(self, owner: str) -> None:
        """The owner has ended."""
        with self._engine.begin() as connection:
            connection.execute(delete(heartbeats).where(heartbeats.c.owner == owner))
