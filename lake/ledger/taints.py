"""Which versions have seen what was erased since, and when their artifacts were deleted."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select, update
from sqlalchemy.engine import Connection, Engine

from lake.ledger.tables import drops, replacements, replicas, rollouts, taints, versions
from lake.tombstones import newest_of, who_saw


class Taint(BaseModel):
    """A version has seen what an erasure has erased. `rebuild` is the recipe's policy at the time of the erasure."""

    model_config = ConfigDict(frozen=True)

    erasure_id: str
    model: str
    version: str
    rebuild: str
    purged_at: datetime | None

    @property
    def blocks(self) -> bool:
        """Whether the version may neither be offered to traffic again nor be a start for another one."""
        return self.rebuild != "never"


def blocking(connection: Connection, model: str, version: str) -> list[str]:
    """Ids of the erasures for which a version may not be offered or built upon, sorted."""
    rows = connection.scalars(
        select(taints.c.erasure_id)
        .where(taints.c.model == model, taints.c.version == version, taints.c.rebuild != "never")
        .order_by(taints.c.erasure_id)
    )
    return list(rows)


def taint(connection: Connection, model: str, dataset_ids: Collection[str], policies: dict[str, str]) -> None:
    """Mark every version that has seen any of these datasets, for each erasure of `policies` (id → rebuild)."""
    rows = connection.execute(select(versions).where(versions.c.model == model).order_by(versions.c.number)).all()
    saw = who_saw(rows, dataset_ids)
    known = {
        (row.erasure_id, row.version)
        for row in connection.execute(select(taints).where(taints.c.model == model, taints.c.erasure_id.in_(policies)))
    }
    new = [
        {"erasure_id": erasure_id, "model": model, "version": row.version, "rebuild": rebuild}
        for erasure_id, rebuild in policies.items()
        for row in rows
        if row.version in saw and row.state != "erased" and (erasure_id, row.version) not in known
    ]
    if new:
        connection.execute(taints.insert(), new)


def wait_again(connection: Connection, model: str, now: datetime) -> bool:
    """Let the drops behind a champion that may not be built upon wait for a training again, if anything is left."""
    rows = connection.execute(select(versions).where(versions.c.model == model).order_by(versions.c.number)).all()
    champion = next((row for row in rows if row.state == "champion"), None)
    if champion is None or not blocking(connection, model, champion.version):
        return False
    rewritten = connection.execute(select(replacements).where(replacements.c.model == model)).all()
    replaced_by = {row.dataset_id: row.replaced_by for row in rewritten}
    parents = {row.version: (row.parent, row.dataset_ids) for row in rows}
    seen: set[str] = set()
    version: str | None = champion.version
    while version in parents:
        version, dataset_ids = parents[version]
        seen.update(newest_of(dataset_id, replaced_by) for dataset_id in dataset_ids)
    this = (drops.c.model == model) & (drops.c.state == "trained")
    empty = {row.replaced_by for row in rewritten if row.n_left == 0}
    n_waiting = 0
    for dataset_id in sorted(seen - empty):
        result = connection.execute(
            update(drops)
            .where(this, drops.c.dataset_id == dataset_id)
            .values(state="waiting", updated_at=now, message="to be trained on again, as part of it was erased")
        )
        n_waiting += result.rowcount
    return n_waiting > 0


class Taints:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self, model: str | None = None) -> list[Taint]:
        """All taints, those of one model if it is given, in the order of the erasures' ids and the versions' age."""
        query = (
            select(taints)
            .join(versions, (versions.c.model == taints.c.model) & (versions.c.version == taints.c.version))
            .order_by(taints.c.erasure_id, taints.c.model, versions.c.number)
        )
        if model is not None:
            query = query.where(taints.c.model == model)
        with self._engine.connect() as connection:
            return [Taint.model_validate(dict(row._mapping)) for row in connection.execute(query)]

    def blocking(self, model: str, version: str | None) -> list[str]:
        """Ids of the erasures for which a version may not be offered or built upon, sorted; none for no version."""
        if version is None:
            return []
        with self._engine.connect() as connection:
            return blocking(connection, model, version)

    def inherit(self, model: str, version: str, parent: str) -> None:
        """A version that starts from a tainted parent's weights, as policy `never` lets it, has seen what that has."""
        with self._engine.begin() as connection:
            this = taints.c.model == model
            mine = set(connection.scalars(select(taints.c.erasure_id).where(this, taints.c.version == version)))
            for row in connection.execute(select(taints).where(this, taints.c.version == parent)).all():
                if row.erasure_id not in mine:
                    connection.execute(taints.insert().values({**row._mapping, "version": version, "purged_at": None}))

    def retire(self, model: str, version: str) -> bool:
        """Make a tainted version `erased`, so that its artifacts can go. False while it serves, rolls out or trains.

        True as well when it was made so before.
        """
        this = (versions.c.model == model) & (versions.c.version == version)
        with self._engine.begin() as connection:
            state = connection.scalar(select(versions.c.state).where(this))
            if state == "erased":
                return True
            # Its own, or one of an experiment's variant of it.
            serves = (replicas.c.version == version) | replicas.c.version.like(f"{version}-%")
            replica = select(replicas.c.port).where(replicas.c.model == model, serves)
            offered = select(rollouts.c.rollout_id).where(
                rollouts.c.model == model, rollouts.c.challenger == version, rollouts.c.state == "running"
            )
            trains = select(drops.c.drop_id).where(drops.c.model == model, drops.c.state == "training")
            held = [replica, offered, *([trains] if state in ("candidate", "ready") else [])]
            if state in ("champion", "challenger") or any(connection.execute(query).first() for query in held):
                return False
            reasons = ", ".join(blocking(connection, model, version))
            connection.execute(
                update(versions)
                .where(this)
                .values(state="erased", message=f"was {state}; deleted by erasure {reasons}")
            )
        return True

    def purged(self, model: str, version: str, now: datetime) -> None:
        """Enter that a version's artifacts are gone."""
        with self._engine.begin() as connection:
            connection.execute(
                update(taints)
                .where(taints.c.model == model, taints.c.version == version, taints.c.purged_at.is_(None))
                .values(purged_at=now)
            )
