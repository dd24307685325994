"""Leases: one holder at a time, however many processes want to act. No clock is compared: observers time a standstill."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from lake.ledger.tables import leases


class Lease(NamedTuple):
    """`token` grows with every holder: whoever acts shows it, and an older one than seen before is refused (a fence)."""

    name: str
    holder: str | None
    token: int
    beat: int


class Leases:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, name: str) -> Lease | None:
        query = select(leases).where(leases.c.name == name)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return Lease(row.name, row.holder, row.token, row.beat) if row else None

    def take(self, name: str, holder: str, seen: Lease | None) -> Lease | None:
        """Take the lease that was `seen` (None: there was none), if it has not moved since: None when it has.

        Whether the one before is gone is the caller's to judge: it has seen the beat stand still, or no holder.
        """
        if seen is None:
            try:
                with self._engine.begin() as connection:
                    connection.execute(leases.insert().values(name=name, holder=holder, token=1, beat=1))
            except IntegrityError:
                return None
            return Lease(name, holder, 1, 1)
        with self._engine.begin() as connection:
            taken = connection.execute(
                update(leases)
                .where(leases.c.name == name, leases.c.token == seen.token, leases.c.beat == seen.beat)
                .values(holder=holder, token=seen.token + 1, beat=seen.beat + 1)
            )
        return Lease(name, holder, seen.token + 1, seen.beat + 1) if taken.rowcount == 1 else None

    def beat(self, lease: Lease) -> Lease | None:
        """Show that the holder lives. None when the lease has another holder by now."""
        with self._engine.begin() as connection:
            beaten = connection.execute(
                update(leases)
                .where(leases.c.name == lease.name, leases.c.token == lease.token, leases.c.holder == lease.holder)
                .values(beat=leases.c.beat + 1)
            )
        return lease._replace(beat=lease.beat + 1) if beaten.rowcount == 1 else None

    def release(self, lease: Lease) -> None:
        """Nobody holds it any more; the next one need not wait."""
        with self._engine.begin() as connection:
            connection.execute(
                update(leases).where(leases.c.name == lease.name, leases.c.token == lease.token).values(holder=None)
            )
