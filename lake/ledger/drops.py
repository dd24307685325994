"""Drops: one unit of work each, from closed to trained. States move by compare-and-set; attempts are counted."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, or_, select, update
from sqlalchemy.engine import Connection, Engine, Row

from lake.errors import TidemillError
from lake.ledger.erasures import is_erasing
from lake.ledger.tables import drops, objects
from lake.records import Drop, ObjectRef

MAX_ATTEMPTS = 6
BACKOFF_FIRST_S, BACKOFF_MAX_S = 2.0, 300.0
_UNDER_WAY = ("preparing", "training")
_STARTABLE = ("closed", "refused", "poison")


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
    not_before: datetime | None
    dataset_id: str | None
    message: str | None


def backoff(attempts: int) -> timedelta:
    """Wait before the next attempt: 2 s after the first, twice as long after each further one, 300 s at most."""
    return timedelta(seconds=min(BACKOFF_FIRST_S * 2.0 ** (attempts - 1), BACKOFF_MAX_S))


def ref_of(row: Row[Any]) -> ObjectRef:
    """A row of `objects` as what the listing has shown."""
    return ObjectRef(
        bucket=row.bucket, key=row.key, etag=row.etag, size_bytes=row.size_bytes, last_modified=row.last_modified
    )


def is_free(connection: Connection, model: str, now: datetime) -> bool:
    """Whether no drop of the model is under way, and none is queued whose time has come."""
    busy = select(drops.c.drop_id).where(
        drops.c.model == model, or_(drops.c.state.in_(_UNDER_WAY), (drops.c.state == "closed") & _is_due(now))
    )
    return connection.scalar(busy.limit(1)) is None


def _is_due(now: datetime) -> Any:
    # A wait longer than any back-off: the clock has gone back since.
    too_far = now + timedelta(seconds=BACKOFF_MAX_S)
    return or_(drops.c.not_before.is_(None), drops.c.not_before <= now, drops.c.not_before > too_far)


class Drops:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def next_closed(self, model: str, now: datetime) -> DropState | None:
        """The oldest closed drop of the model whose back-off is over, when no drop of it is under way."""
        with self._engine.connect() as connection:
            if self._busy(connection, model):
                return None
            row = connection.execute(
                select(drops)
                .where(drops.c.model == model, drops.c.state == "closed", _is_due(now))
                .order_by(drops.c.closed_at)
                .limit(1)
            ).first()
        return DropState.model_validate(dict(row._mapping)) if row else None

    def claim(self, drop_id: str, owner: str, now: datetime, only: Collection[str] = _STARTABLE) -> Drop | None:
        """Take a drop for `owner`, unless another drop of its model is under way: at most one is at a time.

        None when it cannot be had, or is in none of the states `only`. Claiming again what one holds is harmless.
        """
        with self._engine.begin() as connection:
            row = connection.execute(select(drops).where(drops.c.drop_id == drop_id)).first()
            if row is None:
                return None
            if row.state == "preparing" and row.owner == owner:
                return self._load(connection, drop_id)
            if row.state not in only or self._busy(connection, row.model):
                return None
            connection.execute(
                update(drops)
                .where(drops.c.drop_id == drop_id)
                .values(state="preparing", owner=owner, updated_at=now, attempts=row.attempts + 1)
            )
            return self._load(connection, drop_id)

    def give_back(self, drop_id: str, owner: str, message: str, now: datetime) -> None:
        """After an error: closed again until its back-off is over, or poison after MAX_ATTEMPTS, with the reason.

        Harmless when another owner has taken it over.
        """
        with self._engine.begin() as connection:
            row = connection.execute(
                select(drops).where(drops.c.drop_id == drop_id, drops.c.owner == owner, drops.c.state == "preparing")
            ).first()
            if row is not None:
                self._close_again(connection, drop_id, row.attempts, message, now)

    def move(
        self, drop_id: str, expected: str, state: str, now: datetime, *, held_by: str | None = None, **values: Any
    ) -> bool:
        """Compare-and-set of a drop's state, and of its owner where `held_by` is given. False when they were others."""
        this = (drops.c.drop_id == drop_id) & (drops.c.state == expected)
        if held_by is not None:
            this &= drops.c.owner == held_by
        with self._engine.begin() as connection:
            result = connection.execute(update(drops).where(this).values(state=state, updated_at=now, **values))
            return result.rowcount == 1

    def owners(self) -> set[str]:
        """Owners of the drops that are under way."""
        with self._engine.connect() as connection:
            rows = connection.scalars(select(drops.c.owner).where(drops.c.state.in_(_UNDER_WAY)).distinct())
            return {owner for owner in rows if owner}

    def start_training(self, model: str, drop_ids: Collection[str], owner: str, now: datetime) -> bool:
        """Take prepared drops for a training: all or none. False while another training of the model is under way."""
        with self._engine.begin() as connection:
            training = select(drops.c.drop_id).where(drops.c.model == model, drops.c.state == "training").limit(1)
            these = (drops.c.drop_id.in_(drop_ids)) & (drops.c.state == "waiting")
            n_waiting = connection.scalar(select(func.count()).select_from(drops).where(these))
            if connection.scalar(training) is not None or n_waiting != len(drop_ids):
                return False
            connection.execute(update(drops).where(these).values(state="training", owner=owner, updated_at=now))
        return True

    def end_training(
        self, drop_ids: Collection[str], owner: str, state: str, message: str | None, now: datetime
    ) -> bool:
        """The training of these drops has ended: all are `trained`, or `waiting` again. False when they are another's."""
        with self._engine.begin() as connection:
            these = (drops.c.drop_id.in_(drop_ids)) & (drops.c.state == "training") & (drops.c.owner == owner)
            if connection.scalar(select(func.count()).select_from(drops).where(these)) != len(drop_ids):
                return False
            connection.execute(
                update(drops).where(these).values(state=state, owner=None, message=message, updated_at=now)
            )
        return True

    def release(
        self,
        owner: str,
        now: datetime,
        *,
        model: str | None = None,
        reason: str | None = "its process died",
    ) -> list[str]:
        """Give back the drops of an owner, of one model or all, for a `reason`, or for none when it stops in order.

        Returns their ids.

        Drops in training are prepared and checked: they wait for the training to be taken up again. Others are
        claimed again, with a reason after a back-off, and are poison after MAX_ATTEMPTS of these.
        """
        with self._engine.begin() as connection:
            held = select(drops).where(drops.c.state.in_(_UNDER_WAY), drops.c.owner == owner)
            orphans = connection.execute(held if model is None else held.where(drops.c.model == model)).all()
            for row in orphans:
                if row.state == "training":
                    connection.execute(
                        update(drops)
                        .where(drops.c.drop_id == row.drop_id)
                        .values(state="waiting", owner=None, updated_at=now, message=None)
                    )
                elif reason is None:
                    connection.execute(
                        update(drops)
                        .where(drops.c.drop_id == row.drop_id)
                        .values(state="closed", owner=None, updated_at=now, attempts=row.attempts - 1)
                    )
                else:
                    message = f"{reason}, {row.attempts} times; see the logs"
                    self._close_again(connection, row.drop_id, row.attempts, message, now)
        return [row.drop_id for row in orphans]

    def replay(self, drop_id: str, now: datetime) -> None:
        """Queue a poison, refused or backing-off drop at once, its attempts forgotten. Raises TidemillError otherwise."""
        with self._engine.begin() as connection:
            state = connection.scalar(select(drops.c.state).where(drops.c.drop_id == drop_id))
            if state not in _STARTABLE:
                raise TidemillError(
                    f"drop {drop_id}",
                    expected="a drop that is poison, refused, or waits for its next attempt",
                    got=f"state {state}" if state else "no such drop",
                    remedy="'tidemill ledger' lists the drops; what is prepared already is not read twice",
                )
            connection.execute(
                update(drops)
                .where(drops.c.drop_id == drop_id)
                .values(state="closed", attempts=0, not_before=None, owner=None, message=None, updated_at=now)
            )

    def get(self, drop_id: str) -> Drop | None:
        with self._engine.connect() as connection:
            return self._load(connection, drop_id)

    def states(self, model: str | None = None, only: Collection[str] = ()) -> list[DropState]:
        """All drops, or those in the given states only, oldest first."""
        query = select(drops).order_by(drops.c.closed_at)
        if model:
            query = query.where(drops.c.model == model)
        if only:
            query = query.where(drops.c.state.in_(only))
        with self._engine.connect() as connection:
            return [DropState.model_validate(dict(row._mapping)) for row in connection.execute(query)]

    def sizes(self, drop_ids: Collection[str]) -> dict[str, int]:
        """Number of objects in each of these drops."""
        ids, counted = list(drop_ids), dict[str, int]()
        with self._engine.connect() as connection:
            for start in range(0, len(ids), 500):  # databases limit the variables of a statement
                some = objects.c.drop_id.in_(ids[start : start + 500])
                query = select(objects.c.drop_id, func.count()).where(some).group_by(objects.c.drop_id)
                counted.update(dict(connection.execute(query).tuples().all()))
        return {drop_id: counted.get(drop_id, 0) for drop_id in drop_ids}

    def _close_again(self, connection: Connection, drop_id: str, attempts: int, message: str, now: datetime) -> None:
        again = attempts < MAX_ATTEMPTS
        connection.execute(
            update(drops)
            .where(drops.c.drop_id == drop_id)
            .values(
                state="closed" if again else "poison",
                owner=None,
                not_before=now + backoff(attempts) if again else None,
                message=message,
                updated_at=now,
            )
        )

    def _busy(self, connection: Connection, model: str) -> bool:
        """Whether a drop of the model is under way, or an erasure, which changes what drops are compared with."""
        under_way = select(drops.c.drop_id).where(drops.c.model == model, drops.c.state.in_(_UNDER_WAY)).limit(1)
        return connection.scalar(under_way) is not None or is_erasing(connection, model)

    def _load(self, connection: Connection, drop_id: str) -> Drop | None:
        row = connection.execute(select(drops).where(drops.c.drop_id == drop_id)).first()
        if row is None:
            return None
        left = (objects.c.drop_id == drop_id) & (objects.c.state != "erased")
        refs = connection.execute(select(objects).where(left).order_by(objects.c.key))
        return Drop(
            drop_id=drop_id,
            model=row.model,
            objects=tuple(ref_of(found) for found in refs),
            closed_at=row.closed_at,
        )
