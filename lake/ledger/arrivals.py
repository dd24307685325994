"""Arrivals: every object version that a listing has shown, and which set of them became one drop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.engine import Connection, Engine, Row

from lake.ledger.drops import is_free, ref_of
from lake.ledger.tables import drops, objects
from lake.records import Drop, ObjectRef

_PAGE = 1_000
# A store may go on listing what it does not give out, by a name that it has garbled say.
MAX_UNREAD = 3
# One object version, for statements on many of them at once.
_THIS = (objects.c.bucket == bindparam("b")) & (objects.c.key == bindparam("k")) & (objects.c.etag == bindparam("e"))


class ObjectState(BaseModel):
    """One object version as the ledger sees it.

    `seen` (waits for its drop), `assigned`, `deleted` (before a drop took it), `unread` (its drop could not read it,
    `message` says why), `erased`. `gone_at` is when the listing no longer showed it: deleted, or overwritten.
    """

    model_config = ConfigDict(frozen=True)

    bucket: str
    key: str
    etag: str
    model: str
    size_bytes: int
    last_modified: datetime
    first_seen_at: datetime
    drop_id: str | None
    state: str
    gone_at: datetime | None
    message: str | None


def drop_id_of(refs: Iterable[ObjectRef], repeat: int = 0) -> str:
    """Id of a set of object versions: the same set is the same drop, whatever the order it was seen in.

    `repeat` counts earlier drops of the very same set, which could not read it.
    """
    lines = sorted(f"{ref.bucket}\n{ref.key}\n{ref.etag}" for ref in refs)
    if repeat:
        lines.append(f"repeat {repeat}")
    told = hashlib.sha256()
    for number, line in enumerate(lines):  # of 100,000 objects, joined ones would take 30 MB
        told.update((("\n\n" if number else "") + line).encode())
    return "d" + told.hexdigest()[:15]


class Arrivals:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def reconcile(
        self,
        model: str,
        pages: Iterable[Sequence[ObjectRef]],
        started_at: datetime,
        *,
        whole: bool = True,
        keys: Collection[str] = (),
        clock: Callable[[], datetime] | None = None,
    ) -> int:
        """Enter the object versions of a listing that are not known yet. Returns how many are new to a drop.

        `started_at` is when the listing began: what was entered since by someone else may be missing from it. `clock`
        tells when a page is entered, for listings that take long; without it that is `started_at`, too. A `whole`
        listing, or one of given `keys`, also tells what is gone. One transaction for each page with news; a listing
        that breaks off has entered its first pages and marked nothing as gone.
        """
        listed: set[tuple[str, str]] = set()
        n_new = 0
        for page in pages:
            for start in range(0, len(page), _PAGE):
                n_new += self._enter(model, page[start : start + _PAGE], clock() if clock else started_at)
            listed.update((ref.key, ref.etag) for ref in page)
        if whole or keys:
            self._mark_gone(model, listed, started_at, None if whole else keys)
        return n_new

    def close_drop(
        self,
        model: str,
        settle_s: float,
        now: datetime,
        *,
        max_wait_s: float = 120.0,
        max_objects: int = 100_000,
        max_bytes: int = 50_000_000_000,
    ) -> Drop | None:
        """Make one drop of the waiting objects, oldest first, once none has arrived for `settle_s` seconds.

        At once when one has waited for `max_wait_s`, or when as many wait as a drop may hold. Not while another drop of
        the model is queued or under way: objects that arrive meanwhile wait together, and become one drop when it is
        done.
        """
        with self._engine.begin() as connection:
            waiting = (objects.c.model == model) & (objects.c.state == "seen")
            seen_at = objects.c.first_seen_at
            oldest, newest, n_waiting, n_bytes = connection.execute(
                select(func.min(seen_at), func.max(seen_at), func.count(), func.sum(objects.c.size_bytes)).where(
                    waiting
                )
            ).one()
            if newest is None or not is_free(connection, model, now):
                return None
            due = n_waiting >= max_objects or n_bytes >= max_bytes or now - oldest >= timedelta(seconds=max_wait_s)
            # A newest arrival in the future: the clock has gone back, and waiting for it could take for ever.
            if not due and timedelta(0) <= now - newest < timedelta(seconds=settle_s):
                return None
            rows = connection.execute(
                select(objects).where(waiting).order_by(objects.c.first_seen_at, objects.c.key).limit(max_objects)
            )
            return _closed(connection, model, _within([ref_of(row) for row in rows], max_bytes), now)

    def mark_unread(self, drop_id: str, reasons: dict[str, str]) -> None:
        """These keys' versions in the drop could not be read. `source_changed` ones come again when they are listed,
        until that has happened MAX_UNREAD times.
        """
        with self._engine.begin() as connection:
            for key, reason in reasons.items():
                connection.execute(
                    update(objects)
                    .where(objects.c.drop_id == drop_id, objects.c.key == key, objects.c.state == "assigned")
                    .values(state="unread", message=reason, n_unread=objects.c.n_unread + 1)
                )

    def requeue_unread(self, drop_id: str, now: datetime) -> int:
        """Let the unread objects of a drop go into the next one. Returns how many there were."""
        with self._engine.begin() as connection:
            result = connection.execute(
                update(objects)
                .where(objects.c.drop_id == drop_id, objects.c.state == "unread")
                .values(state="seen", drop_id=None, first_seen_at=now, message=None, n_unread=0)
            )
            return int(result.rowcount)

    def objects(
        self,
        model: str | None = None,
        state: str | None = None,
        drop_id: str | None = None,
        key: str | None = None,
        key_contains: str | None = None,
        limit: int = 1_000,
    ) -> list[ObjectState]:
        """Object versions, newest first."""
        query = select(objects).order_by(objects.c.first_seen_at.desc(), objects.c.key).limit(limit)
        asked = {"model": model, "state": state, "drop_id": drop_id, "key": key}
        for name, value in asked.items():
            if value is not None:
                query = query.where(objects.c[name] == value)
        if key_contains is not None:
            query = query.where(objects.c.key.contains(key_contains, autoescape=True))
        with self._engine.connect() as connection:
            return [ObjectState.model_validate(dict(row._mapping)) for row in connection.execute(query)]

    def counts(self) -> dict[tuple[str, str], int]:
        """Number of object versions by `(model, state)`."""
        query = select(objects.c.model, objects.c.state, func.count()).group_by(objects.c.model, objects.c.state)
        with self._engine.connect() as connection:
            return {(model, state): n for model, state, n in connection.execute(query)}

    def drops_with_object(self, key: str) -> list[tuple[ObjectRef, str | None]]:
        """Every known version of a key, with the drop it went into."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(objects).where(objects.c.key == key).order_by(objects.c.first_seen_at)
            ).all()
        return [(ref_of(row), row.drop_id) for row in rows]

    def _enter(self, model: str, page: Sequence[ObjectRef], now: datetime) -> int:
        with self._engine.connect() as connection:
            if not any(_news(connection, page, now)):
                return 0
        with self._engine.begin() as connection:
            new, again = _news(connection, page, now)  # once more: another process may have entered them meanwhile
            if new:
                connection.execute(objects.insert(), [_entered(model, ref, now) for ref in new])
            for ref, values in again:
                connection.execute(update(objects).where(_is(ref)).values(**values, gone_at=None))
            return len(new) + sum("state" in values for _, values in again)

    def _mark_gone(
        self, model: str, listed: set[tuple[str, str]], started_at: datetime, keys: Collection[str] | None
    ) -> None:
        query = select(objects.c.bucket, objects.c.key, objects.c.etag, objects.c.state).where(
            objects.c.model == model, objects.c.gone_at.is_(None), objects.c.first_seen_at < started_at
        )
        if keys is not None:
            query = query.where(objects.c.key.in_(keys))
        with self._engine.connect() as connection:
            gone = [row for row in connection.execute(query) if (row.key, row.etag) not in listed]
        if not gone:
            return
        rows = [_names(row) for row in gone]
        with self._engine.begin() as connection:
            connection.execute(update(objects).where(_THIS).values(gone_at=started_at), rows)
            # A version that vanished before a drop took it will never be readable.
            connection.execute(update(objects).where(_THIS & (objects.c.state == "seen")).values(state="deleted"), rows)


def _news(
    connection: Connection, page: Sequence[ObjectRef], now: datetime
) -> tuple[list[ObjectRef], list[tuple[ObjectRef, dict[str, Any]]]]:
    """What of a page is new to the ledger; and what it believed gone or could not read, with the values to set."""
    query = select(objects).where(objects.c.key.in_([ref.key for ref in page]))
    known = {(row.bucket, row.key, row.etag): row for row in connection.execute(query)}
    new: dict[tuple[str, str, str], ObjectRef] = {}
    again: list[tuple[ObjectRef, dict[str, Any]]] = []
    for ref in page:
        row = known.get((ref.bucket, ref.key, ref.etag))
        if row is None:
            new[ref.bucket, ref.key, ref.etag] = ref
        elif row.state == "deleted" or (
            row.state == "unread" and row.message == "source_changed" and row.n_unread < MAX_UNREAD
        ):
            again.append((ref, {"state": "seen", "drop_id": None, "message": None, "first_seen_at": now}))
        elif row.gone_at is not None:
            again.append((ref, {}))
    return list(new.values()), again


def _closed(connection: Connection, model: str, refs: Sequence[ObjectRef], now: datetime) -> Drop:
    repeat = 0
    while connection.scalar(select(drops.c.drop_id).where(drops.c.drop_id == drop_id_of(refs, repeat))):
        repeat += 1
    drop = Drop(drop_id=drop_id_of(refs, repeat), model=model, objects=tuple(refs), closed_at=now)
    connection.execute(
        drops.insert().values(
            drop_id=drop.drop_id, model=model, state="closed", closed_at=now, updated_at=now, attempts=0
        )
    )
    for start in range(0, len(refs), _PAGE):
        connection.execute(
            update(objects).where(_THIS).values(state="assigned", drop_id=drop.drop_id),
            [_names(ref) for ref in refs[start : start + _PAGE]],
        )
    return drop


def _within(refs: Sequence[ObjectRef], max_bytes: int) -> list[ObjectRef]:
    """The first refs that hold at most `max_bytes` together, at least one; in the order of their keys."""
    taken: list[ObjectRef] = []
    left = max_bytes
    for ref in refs:
        left -= ref.size_bytes
        if taken and left < 0:
            break
        taken.append(ref)
    return sorted(taken, key=lambda ref: (ref.key, ref.etag))


def _is(ref: ObjectRef) -> Any:
    return (objects.c.bucket == ref.bucket) & (objects.c.key == ref.key) & (objects.c.etag == ref.etag)


def _entered(model: str, ref: ObjectRef, now: datetime) -> dict[str, Any]:
    return {**ref.model_dump(), "model": model, "first_seen_at": now, "drop_id": None, "state": "seen"}


def _names(version: Row[Any] | ObjectRef) -> dict[str, str]:
    """What `_THIS` asks for."""
    return {"b": version.bucket, "k": version.key, "e": version.etag}
