"""Erasures: what is never to be read again, and which dataset stands for one that has been rewritten without it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, select, true, update
from sqlalchemy.engine import Connection, Engine

from lake.ledger.tables import drops, erasures, objects, replacements, tombstones
from lake.ledger.taints import taint, wait_again
from lake.records import Dataset
from lake.tombstones import Tombstones, chain_to

T = TypeVar("T")
SUBJECTS_KEPT = 100
_AT_ONCE = 500  # SQLite takes at most 999 values in a statement, of old
HELD_FOR = timedelta(minutes=2)
_NOT_STARTED = ("closed", "refused", "poison")


class Erasure(BaseModel):
    """One request of one model. `found` holds counts, ids and keys, never text."""

    model_config = ConfigDict(frozen=True)

    erasure_id: str
    model: str
    state: str
    subjects: tuple[str, ...]
    n_subjects: int
    requested_by: str
    requested_at: datetime
    rebuild: str
    found: dict[str, Any]
    owner: str | None
    held_until: datetime | None
    done_at: datetime | None


class Replacement(BaseModel):
    """A dataset and the one that stands for it: without `n_documents` that it kept, so that `n_left` are left."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    model: str
    replaced_by: str
    erasure_ids: tuple[str, ...]
    n_documents: int
    n_left: int
    replaced_at: datetime


def is_erasing(connection: Connection, model: str) -> bool:
    """Whether an erasure of the model is open: what is prepared meanwhile could not see a stable history."""
    query = select(erasures.c.erasure_id).where(erasures.c.model == model, erasures.c.state == "open")
    return connection.scalar(query.limit(1)) is not None


class Erasures:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def open(
        self,
        *,
        model: str,
        subjects: Sequence[str],
        keys: Collection[str],
        documents: Collection[str],
        texts: Collection[int],
        rebuild: str,
        requested_by: str,
        owner: str,
        found: dict[str, Any],
        now: datetime,
    ) -> Erasure:
        """Enter an erasure with its tombstones, in one transaction: from now on nothing of it is read again.

        Every known version of the objects `keys` is `erased`, and so is a drop of which nothing else is left to read.
        """
        opened = Erasure(
            erasure_id=f"e{uuid.uuid4().hex[:15]}",
            model=model,
            state="open",
            subjects=tuple(subjects[:SUBJECTS_KEPT]),
            n_subjects=len(subjects),
            requested_by=requested_by,
            requested_at=now,
            rebuild=rebuild,
            found=found,
            owner=owner,
            held_until=now + HELD_FOR,
            done_at=None,
        )
        with self._engine.begin() as connection:
            connection.execute(erasures.insert().values(opened.model_dump()))
            _bury(connection, opened, "document", sorted(documents))
            _bury(connection, opened, "text", sorted(map(_text_value, texts)))
            _erase_objects(connection, opened, sorted(keys), now)
        return opened

    def opened(self, model: str | None = None) -> list[Erasure]:
        """Erasures that are not done, oldest first."""
        return self._select(erasures.c.state == "open", model)

    def all(self, model: str | None = None) -> list[Erasure]:
        """All erasures, oldest first."""
        return self._select(true(), model)

    def tombstones(self, model: str) -> Tombstones:
        """All that has ever been erased of a model."""
        query = select(tombstones.c.kind, tombstones.c.value).where(tombstones.c.model == model)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return Tombstones(
            documents=frozenset(value for kind, value in rows if kind == "document"),
            texts=frozenset(int(value, 16) for kind, value in rows if kind == "text"),
        )

    def covering(self, model: str, documents: Collection[str]) -> set[str]:
        """Ids of the erasures that have buried these documents."""
        with self._engine.connect() as connection:
            return _who_buried(connection, model, documents)

    def objects_left(self, model: str, keys: Collection[str]) -> dict[str, bool]:
        """For each of these keys that is known: whether any version of it is not erased."""
        left: dict[str, bool] = {}
        with self._engine.connect() as connection:
            for some in _chunks(sorted(keys)):
                this = (objects.c.model == model) & objects.c.key.in_(some)
                for row in connection.execute(select(objects.c.key, objects.c.state).where(this)):
                    left[row.key] = left.get(row.key, False) or row.state != "erased"
        return left

    def erased_uris(self, drop_id: str) -> frozenset[str]:
        """The objects of a drop that are erased as a whole."""
        query = select(objects.c.bucket, objects.c.key).where(objects.c.drop_id == drop_id, objects.c.state == "erased")
        with self._engine.connect() as connection:
            return frozenset(f"s3://{row.bucket}/{row.key}" for row in connection.execute(query))

    def replacements(self, model: str) -> list[Replacement]:
        """Rewritten datasets of a model, oldest first."""
        query = select(replacements).where(replacements.c.model == model).order_by(replacements.c.replaced_at)
        with self._engine.connect() as connection:
            return [Replacement.model_validate(dict(row._mapping)) for row in connection.execute(query)]

    def replaced_by(self, model: str) -> dict[str, str]:
        """Dataset id → id of the one that has come to replace it."""
        return {found.dataset_id: found.replaced_by for found in self.replacements(model)}

    def replace(self, old: Dataset, new: Dataset, erased: Collection[str], now: datetime) -> bool:
        """Let `new`, which is `old` without the documents `erased`, stand for it everywhere, in one transaction.

        Drops point to it, and versions that have seen what it leaves out are tainted. False when another replacement
        was first: then nothing is done. Harmless to repeat.
        """
        model = old.model
        with self._engine.begin() as connection:
            replaced_by = {
                row.dataset_id: row.replaced_by
                for row in connection.execute(select(replacements).where(replacements.c.model == model))
            }
            if old.dataset_id in replaced_by:
                return bool(replaced_by[old.dataset_id] == new.dataset_id)
            policies = _policies(connection, model, erased)
            connection.execute(
                replacements.insert().values(
                    dataset_id=old.dataset_id,
                    model=model,
                    replaced_by=new.dataset_id,
                    erasure_ids=sorted(policies),
                    n_documents=old.n_kept - new.n_kept,
                    n_left=new.n_kept,
                    replaced_at=now,
                )
            )
            this = drops.c.dataset_id == old.dataset_id
            connection.execute(update(drops).where(this).values(dataset_id=new.dataset_id))
            if new.n_kept == 0:
                this = (drops.c.dataset_id == new.dataset_id) & (drops.c.state == "waiting")
                connection.execute(update(drops).where(this).values(state="erased", message=_left_of(policies)))
            if new.n_kept < old.n_kept:
                taint(connection, model, chain_to(old.dataset_id, replaced_by), policies)
        return True

    def hold(self, model: str, owner: str, now: datetime, is_gone: Callable[[str], bool]) -> list[Erasure]:
        """Take, or keep, the open erasures of a model for `owner`. None while another process works on them.

        That one is believed for HELD_FOR after it last said so, unless `is_gone` knows better. Two that work on them at
        the same time do no harm, only the same work.
        """
        opened = (erasures.c.model == model) & (erasures.c.state == "open")
        with self._engine.begin() as connection:
            rows = connection.execute(select(erasures).where(opened).order_by(erasures.c.requested_at)).all()
            if not rows:
                return []
            held = rows[0].owner not in (None, owner) and rows[0].held_until > now and not is_gone(rows[0].owner)
            if held:
                return []
            connection.execute(update(erasures).where(opened).values(owner=owner, held_until=now + HELD_FOR))
        return [Erasure.model_validate(dict(row._mapping)) for row in rows]

    def close(self, model: str, erasure_ids: Collection[str], now: datetime) -> None:
        """Declare erasures of a model done.

        Where the policy is to rebuild now, and the champion is tainted, what is left of its data waits for a training.
        """
        with self._engine.begin() as connection:
            these = erasures.c.erasure_id.in_(erasure_ids) & (erasures.c.state == "open")
            now_due = connection.scalars(select(erasures.c.rebuild).where(these)).all()
            connection.execute(update(erasures).where(these).values(state="done", done_at=now, owner=None))
            if "now" in now_due:
                wait_again(connection, model, now)

    def rebuild(self, model: str, now: datetime) -> bool:
        """Let what is left of a tainted champion's data wait for a training again. Returns whether anything does.

        False as well when the champion has seen nothing that was erased since.
        """
        with self._engine.begin() as connection:
            return wait_again(connection, model, now)

    def _select(self, condition: ColumnElement[bool], model: str | None) -> list[Erasure]:
        query = select(erasures).where(condition).order_by(erasures.c.requested_at)
        if model is not None:
            query = query.where(erasures.c.model == model)
        with self._engine.connect() as connection:
            return [Erasure.model_validate(dict(row._mapping)) for row in connection.execute(query)]


def _bury(connection: Connection, erasure: Erasure, kind: str, values: Sequence[str]) -> None:
    this = (tombstones.c.model == erasure.model) & (tombstones.c.kind == kind)
    for some in _chunks(values):
        known = set(connection.scalars(select(tombstones.c.value).where(this, tombstones.c.value.in_(some))))
        rows = [
            {"model": erasure.model, "kind": kind, "value": value, "erasure_id": erasure.erasure_id}
            for value in some
            if value not in known
        ]
        if rows:
            connection.execute(tombstones.insert(), rows)


def _erase_objects(connection: Connection, erasure: Erasure, keys: Sequence[str], now: datetime) -> None:
    touched: set[str] = set()
    for some in _chunks(keys):
        this = (objects.c.model == erasure.model) & objects.c.key.in_(some) & (objects.c.state != "erased")
        touched.update(filter(None, connection.scalars(select(objects.c.drop_id).where(this))))
        connection.execute(update(objects).where(this).values(state="erased", message=f"erasure {erasure.erasure_id}"))
    for drop_id in sorted(touched):
        left = select(objects.c.key).where(objects.c.drop_id == drop_id, objects.c.state != "erased").limit(1)
        if connection.scalar(left) is None:
            this = (drops.c.drop_id == drop_id) & drops.c.state.in_(_NOT_STARTED)
            message = _left_of([erasure.erasure_id])
            connection.execute(update(drops).where(this).values(state="erased", updated_at=now, message=message))


def _policies(connection: Connection, model: str, erased: Collection[str]) -> dict[str, str]:
    """Erasure → rebuild policy, of those that want these documents gone; of all open ones when none names them.

    None names what an object held whose drop was being prepared when it was erased.
    """
    rebuild = {
        row.erasure_id: row.rebuild
        for row in connection.execute(select(erasures).where(erasures.c.model == model))
    }  # fmt: skip
    opened = select(erasures.c.erasure_id).where(erasures.c.model == model, erasures.c.state == "open")
    named = _who_buried(connection, model, erased) or set(connection.scalars(opened))
    return {erasure_id: rebuild[erasure_id] for erasure_id in named}


def _who_buried(connection: Connection, model: str, documents: Collection[str]) -> set[str]:
    found: set[str] = set()
    this = (tombstones.c.model == model) & (tombstones.c.kind == "document")
    for some in _chunks(sorted(documents)):
        query = select(tombstones.c.erasure_id).where(this, tombstones.c.value.in_(some)).distinct()
        found.update(connection.scalars(query))
    return found


def _left_of(erasure_ids: Collection[str]) -> str:
    return f"nothing is left of it after erasure {', '.join(sorted(erasure_ids))}"


def _text_value(exact: int) -> str:
    return f"{exact:016x}"


def _chunks(values: Sequence[T]) -> Iterator[list[T]]:
    remaining = iter(values)
    while some := list(islice(remaining, _AT_ONCE)):
        yield some
