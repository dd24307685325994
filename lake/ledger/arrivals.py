"""Objects and drops: what the listing showed, and which set of it became one unit of work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select, update
from sqlalchemy.engine import Connection, Engine, Row

from lake.ledger.tables import drops, objects
from lake.records import Drop, ObjectRef

MAX_ATTEMPTS = 3
_UNDER_WAY = ("preparing", "training")


class DropState(BaseModel):
    """One drop as the ledger sees it."""

    model_config = ConfigDict(frozen=True)

    drop_id: str
    model: str
    state: str
    closed_at: datetime
    updated_at: datetime
    owner: str | None
    attempts: int
    dataset_id: str | None
    message: str | None


def drop_id_of(refs: Iterable[ObjectRef]) -> str:
    """Id of a set of object versions: the same set is the same drop, whatever the order it was seen in."""
    lines = sorted(f"{ref.bucket}\n{ref.key}\n{ref.etag}" for ref in refs)
    return "d" + hashlib.sha256("\n\n".join(lines).encode()).hexdigest()[:15]


class Arrivals:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def reconcile(self, model: str, listing: Iterable[ObjectRef], now: datetime) -> int:
        """Enter object versions not seen before; mark versions gone from the listing. Returns the number of new ones."""
        listed = {(ref.bucket, ref.key, ref.etag): ref for ref in listing}
        with self._engine.begin() as connection:
            known = {
                (row.bucket, row.key, row.etag): row.state
                for row in connection.execute(
                    select(objects.c.bucket, objects.c.key, objects.c.etag, objects.c.state).where(
                        objects.c.model == model
                    )
                )
            }
            new = [ref for identity, ref in listed.items() if identity not in known]
            if new:
                connection.execute(objects.insert(), [_entered(model, ref, now) for ref in new])
            # A version that vanished before it was assigned will never be readable.
            for identity, state in known.items():
                if state == "seen" and identity not in listed:
                    connection.execute(update(objects).where(_is(identity)).values(state="deleted"))
                elif state == "deleted" and identity in listed:
                    connection.execute(update(objects).where(_is(identity)).values(state="seen", first_seen_at=now))
        return len(new)

    def close_drop(self, model: str, settle_s: float, now: datetime) -> Drop | None:
        """Make one drop of all waiting objects once none has arrived for `settle_s` seconds."""
        with self._engine.begin() as connection:
            newest = connection.scalar(
                select(func.max(objects.c.first_seen_at)).where(objects.c.model == model, objects.c.state == "seen")
            )
            if newest is None or now - newest < timedelta(seconds=settle_s):
                return None
            waiting = (objects.c.model == model) & (objects.c.state == "seen")
            refs = [_ref(row) for row in connection.execute(select(objects).where(waiting).order_by(objects.c.key))]
            drop = Drop(drop_id=drop_id_of(refs), model=model, objects=tuple(refs), closed_at=now)
            connection.execute(
                drops.insert().values(
                    drop_id=drop.drop_id, model=model, state="closed", closed_at=now, updated_at=now, attempts=0
                )
            )
            connection.execute(update(objects).where(waiting).values(state="assigned", drop_id=drop.drop_id))
            return drop

    def next_closed(self, model: str) -> str | None:
        """The oldest closed drop of the model, when no drop of it is under way."""
        with self._engine.connect() as connection:
            if self._busy(connection, model):
                return None
            return connection.scalar(
                select(drops.c.drop_id)
                .where(drops.c.model == model, drops.c.state == "closed")
                .order_by(drops.c.closed_at)
                .limit(1)
            )

    def claim(self, drop_id: str, owner: str, now: datetime) -> Drop | None:
        """Take a drop for `owner`, unless another drop of its model is under way: at most one is at a time.

        None when it cannot be had. Claiming again what one holds is harmless.
        """
        with self._engine.begin() as connection:
            row = connection.execute(select(drops).where(drops.c.drop_id == drop_id)).first()
            if row is None:
                return None
            if row.state == "preparing" and row.owner == owner:
                return self._load(connection, drop_id)
            if row.state not in ("closed", "refused", "failed") or self._busy(connection, row.model):
                return None
            connection.execute(
                update(drops)
                .where(drops.c.drop_id == drop_id)
                .values(state="preparing", owner=owner, updated_at=now, attempts=row.attempts + 1)
            )
            return self._load(connection, drop_id)

    def give_back(self, drop_id: str, message: str, now: datetime) -> None:
        """After an error: closed again for another attempt, or failed after MAX_ATTEMPTS, with the reason."""
        with self._engine.begin() as connection:
            attempts = connection.scalar(select(drops.c.attempts).where(drops.c.drop_id == drop_id)) or 0
            connection.execute(
                update(drops)
                .where(drops.c.drop_id == drop_id, drops.c.state == "preparing")
                .values(state="closed" if attempts < MAX_ATTEMPTS else "failed", message=message, updated_at=now)
            )

    def move(self, drop_id: str, expected: str, state: str, now: datetime, **values: Any) -> bool:
        """Compare-and-set of a drop's state. False when it was not in the expected one."""
        with self._engine.begin() as connection:
            result = connection.execute(
                update(drops)
                .where(drops.c.drop_id == drop_id, drops.c.state == expected)
                .values(state=state, updated_at=now, **values)
            )
            return result.rowcount == 1

    def owners(self) -> set[str]:
        """Owners of the drops that are under way."""
        with self._engine.connect() as connection:
            rows = connection.scalars(select(drops.c.owner).where(drops.c.state.in_(_UNDER_WAY)).distinct())
            return {owner for owner in rows if owner}

    def release(self, owner: str, now: datetime) -> list[str]:
        """Give back the drops of an owner that died. Returns their ids.

        Drops in training are prepared and checked: they wait for the training to be taken up again. Others are
        claimed again, or failed after MAX_ATTEMPTS.
        """
        with self._engine.begin() as connection:
            orphans = connection.execute(
                select(drops).where(drops.c.state.in_(_UNDER_WAY), drops.c.owner == owner)
            ).all()
            for row in orphans:
                again = row.attempts < MAX_ATTEMPTS
                state = "waiting" if row.state == "training" else "closed" if again else "failed"
                message = f"its process died {row.attempts} times; see the logs" if state == "failed" else None
                connection.execute(
                    update(drops)
                    .where(drops.c.drop_id == row.drop_id)
                    .values(state=state, updated_at=now, message=message)
                )
        return [row.drop_id for row in orphans]

    def drop(self, drop_id: str) -> Drop | None:
        with self._engine.connect() as connection:
            return self._load(connection, drop_id)

    def states(self, model: str | None = None) -> list[DropState]:
        """All drops, oldest first."""
        query = select(drops).order_by(drops.c.closed_at)
        if model:
            query = query.where(drops.c.model == model)
        with self._engine.connect() as connection:
            return [DropState.model_validate(dict(row._mapping)) for row in connection.execute(query)]

    def drops_with_object(self, key: str) -> list[tuple[ObjectRef, str | None]]:
        """Every known version of a key, with the drop it went into."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(objects).where(objects.c.key == key).order_by(objects.c.first_seen_at)
            ).all()
        return [(_ref(row), row.drop_id) for row in rows]

    def _busy(self, connection: Connection, model: str) -> bool:
        under_way = select(drops.c.drop_id).where(drops.c.model == model, drops.c.state.in_(_UNDER_WAY)).limit(1)
        return connection.scalar(under_way) is not None

    def _load(self, connection: Connection, drop_id: str) -> Drop | None:
        row = connection.execute(select(drops).where(drops.c.drop_id == drop_id)).first()
        if row is None:
            return None
        refs = connection.execute(select(objects).where(objects.c.drop_id == drop_id).order_by(objects.c.key))
        return Drop(
            drop_id=drop_id,
            model=row.model,
            objects=tuple(_ref(found) for found in refs),
            closed_at=row.closed_at,
        )


def _is(identity: tuple[str, str, str]) -> Any:
    bucket, key, etag = identity
    return (objects.c.bucket == bucket) & (objects.c.key == key) & (objects.c.etag == etag)


def _entered(model: str, ref: ObjectRef, now: datetime) -> dict[str, Any]:
    return {**ref.model_dump(), "model": model, "first_seen_at": now, "drop_id": None, "state": "seen"}


def _ref(row: Row[Any]) -> ObjectRef:
    return ObjectRef(
        bucket=row.bucket, key=row.key, etag=row.etag, size_bytes=row.size_bytes, last_modified=row.last_modified
    )
