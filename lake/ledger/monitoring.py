"""Drift windows: every verdict."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from lake.ledger.tables import drift_windows
from lake.records import DriftVerdict


class DriftWindows:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def next_number(self, model: str, version: str) -> int:
        """Number of the version's first window after the last judged one. Windows between two verdicts may be skipped."""
        with self._engine.connect() as connection:
            last = connection.scalar(
                select(func.max(drift_windows.c.number)).where(
                    drift_windows.c.model == model, drift_windows.c.version == version
                )
            )
        return 0 if last is None else int(last) + 1

    def record(self, number: int, verdict: DriftVerdict) -> bool:
        """Enter window `number`'s verdict. False when it has been judged before."""
        try:
            with self._engine.begin() as connection:
                connection.execute(
                    drift_windows.insert().values(
                        drift_id=verdict.drift_id,
                        model=verdict.model,
                        version=verdict.version,
                        number=number,
                        record=verdict.model_dump(mode="json"),
                        decided_at=verdict.decided_at,
                        retrained=0,
                    )
                )
        except IntegrityError:
            return False
        return True

    def verdicts(self, model: str, version: str | None = None) -> list[DriftVerdict]:
        """Verdicts in the order of their windows."""
        query = select(drift_windows.c.record).where(drift_windows.c.model == model)
        if version:
            query = query.where(drift_windows.c.version == version)
        with self._engine.connect() as connection:
            rows = connection.scalars(query.order_by(drift_windows.c.decided_at, drift_windows.c.number))
            return [DriftVerdict.model_validate(row) for row in rows]
