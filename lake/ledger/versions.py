"""Versions of a model: from candidate to champion, or to the reason why not."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select, update
from sqlalchemy.engine import Engine

from lake.ledger.tables import versions


class Version(BaseModel):
    """One row. `number` orders versions; `version` is `v<number>`."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: str
    number: int
    training_key: str
    state: str
    reason: str
    dataset_ids: tuple[str, ...]
    parent: str | None
    message: str | None
    created_at: datetime
    live_at: datetime | None


class Versions:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def allocate(
        self, *, model: str, training_key: str, reason: str, dataset_ids: tuple[str, ...], parent: str | None
    ) -> Version:
        """The version for this training, made once: the same `training_key` gets the same version again.

        One that failed is a candidate again. Other candidates are superseded: the model has one training at a time.
        """
        with self._engine.begin() as connection:
            found = connection.execute(
                select(versions).where(versions.c.model == model, versions.c.training_key == training_key)
            ).first()
            if found is None:
                newest = connection.scalar(select(func.max(versions.c.number)).where(versions.c.model == model)) or 0
                connection.execute(
                    versions.insert().values(
                        model=model,
                        version=f"v{newest + 1}",
                        number=newest + 1,
                        training_key=training_key,
                        state="candidate",
                        reason=reason,
                        dataset_ids=list(dataset_ids),
                        parent=parent,
                        created_at=datetime.now(UTC),
                    )
                )
                found = connection.execute(
                    select(versions).where(versions.c.model == model, versions.c.training_key == training_key)
                ).one()
            this = (versions.c.model == model) & (versions.c.version == found.version)
            connection.execute(
                update(versions).where(this, versions.c.state == "failed").values(state="candidate", message=None)
            )
            connection.execute(
                update(versions)
                .where(versions.c.model == model, versions.c.version != found.version, versions.c.state == "candidate")
                .values(state="failed", message=f"superseded by {found.version} before it ended")
            )
            found = connection.execute(select(versions).where(this)).one()
        return Version.model_validate(dict(found._mapping))

    def get(self, model: str, version: str) -> Version | None:
        with self._engine.connect() as connection:
            row = connection.execute(
                select(versions).where(versions.c.model == model, versions.c.version == version)
            ).first()
        return Version.model_validate(dict(row._mapping)) if row else None

    def champion(self, model: str) -> Version | None:
        """The version that serves, or None before the first."""
        with self._engine.connect() as connection:
            row = connection.execute(
                select(versions).where(versions.c.model == model, versions.c.state == "champion")
            ).first()
        return Version.model_validate(dict(row._mapping)) if row else None

    def all(self, model: str | None = None) -> list[Version]:
        """All versions, oldest first."""
        query = select(versions).order_by(versions.c.model, versions.c.number)
        if model:
            query = query.where(versions.c.model == model)
        with self._engine.connect() as connection:
            return [Version.model_validate(dict(row._mapping)) for row in connection.execute(query)]

    def move(
        self, model: str, version: str, state: str, message: str | None = None, *, expected: Collection[str]
    ) -> bool:
        """Compare-and-set of a version's state, with the reason in words. False when it was in no expected one.

        A process that was paused must not take the crown from what has become champion meanwhile.
        """
        with self._engine.begin() as connection:
            moved = connection.execute(
                update(versions)
                .where(versions.c.model == model, versions.c.version == version, versions.c.state.in_(expected))
                .values(state=state, message=message)
            )
        return moved.rowcount == 1

    def crown(self, model: str, version: str) -> None:
        """Make a version the champion and retire the one before, in one transaction. Idempotent."""
        with self._engine.begin() as connection:
            connection.execute(
                update(versions)
                .where(versions.c.model == model, versions.c.state == "champion", versions.c.version != version)
                .values(state="retired")
            )
            connection.execute(
                update(versions)
                .where(versions.c.model == model, versions.c.version == version, versions.c.state != "champion")
                .values(state="champion", live_at=datetime.now(UTC), message=None)
            )
