"""The ledger as a database: schema, migration, errors with a remedy, and the two small books."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.stages import StageAttempt
from lake.ledger.tables import metadata
from lake.records import DriftVerdict, ObjectRef
from lake.settings import Settings
from tests.concurrently import concurrently

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def verdict(drift_id: str, version: str = "v1", minute: int = 0) -> DriftVerdict:
    return DriftVerdict(
        drift_id=drift_id,
        model="docs",
        version=version,
        method="mmd",
        statistic=0.1,
        p_value=0.001,
        n_reference=500,
        n_current=500,
        drifted=True,
        confirmed=False,
        report_key="reports/x.html",
        decided_at=NOW + timedelta(minutes=minute),
    )


def test_migrations_make_exactly_the_tables_of_the_code(ledger: Ledger) -> None:
    with ledger.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        # Uniqueness decides races: compared here, as alembic does not look at SQLite's unnamed constraints.
        found = {
            name: sorted(tuple(unique["column_names"]) for unique in inspect(connection).get_unique_constraints(name))
            for name in metadata.tables
        }
    wanted = {
        name: sorted(
            tuple(column.name for column in constraint.columns)
            for constraint in table.constraints
            if constraint.__visit_name__ in ("unique_constraint", "column_unique_constraint")
        )
        for name, table in metadata.tables.items()
    }
    assert found == wanted


def test_migrating_again_changes_nothing(ledger: Ledger) -> None:
    current, newest = ledger.revision()
    assert current == newest
    ledger.migrate()
    assert ledger.revision() == (current, newest)


def test_a_new_database_has_no_revision(unmigrated: Ledger) -> None:
    current, newest = unmigrated.revision()
    assert current is None
    assert newest is not None


def test_sqlite_survives_a_kill_of_its_process(settings: Settings) -> None:
    opened = Ledger(settings)
    with opened.engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA synchronous")) == 2  # FULL
    opened.engine.dispose()


def test_times_of_any_zone_come_back_in_utc(ledger: Ledger) -> None:
    summer_time = timezone(timedelta(hours=2))
    seen = ObjectRef(
        bucket="b", key="k", etag="e", size_bytes=1, last_modified=datetime(2026, 7, 1, 1, tzinfo=summer_time)
    )
    ledger.arrivals.reconcile("docs", [[seen]], NOW)
    ((found, _),) = ledger.arrivals.drops_with_object("k")
    assert found.last_modified == datetime(2026, 6, 30, 23, tzinfo=UTC)
    assert found.last_modified.tzinfo is UTC


@pytest.mark.parametrize(
    ("url", "got"),
    [
        ("nonsense", "Could not parse"),
        ("oracle+nothing://u:hidden@db/x", "nothing"),
        ("sqlite:////proc/no/ledger.db", "No such file"),
        ("postgresql://u:hid@den@db/x", "several"),
        ("postgresql://u:hidden@127.0.0.1:1/x?connect_timeout=3", "Connection refused"),
        ("postgres://127.0.0.1:1/x?user=u&password=hidden", "Connection refused"),
    ],
)
def test_a_database_that_cannot_be_opened_is_explained(settings: Settings, url: str, got: str) -> None:
    with pytest.raises(TidemillError) as caught:
        Ledger(settings.model_copy(update={"database_url": url})).migrate()
    assert got in caught.value.got
    assert "TIDEMILL_DATABASE_URL" in caught.value.remedy
    assert "hidden" not in str(caught.value)
    assert "den@db" not in str(caught.value)


def test_a_file_that_is_no_database_is_explained(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this is not a database, and long enough to be seen as none" * 10)
    with pytest.raises(TidemillError, match="not a database"):
        Ledger(settings.model_copy(update={"database_url": f"sqlite:///{path}"})).migrate()


def test_a_ledger_of_a_newer_version_is_refused(ledger: Ledger) -> None:
    with ledger.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(TidemillError, match="this version of Tidemill"):
        ledger.migrate()


def commit(ledger: Ledger, attempt: StageAttempt, by: int) -> bool:
    return ledger.stages.commit(
        attempt, stage="prepare", manifest_key=f"{attempt.prefix}manifest.json", record={"by": by}, duration_s=1.5
    )


def test_a_stage_is_committed_once(ledger: Ledger) -> None:
    assert ledger.stages.find("s1") is None
    attempt = ledger.stages.begin("s1", "docs", "datasets/docs/s1/")
    won = concurrently([partial(commit, ledger, attempt, by) for by in range(6)])
    assert sum(won) == 1
    assert ledger.stages.find("s1") == {"by": won.index(True)}
    assert ledger.stages.records("prepare", "docs") == [{"by": won.index(True)}]
    assert ledger.stages.records("prepare", "other") == []
    assert ledger.stages.durations("docs") == [("prepare", "s1", 1.5)]


def test_of_attempts_that_begin_at_once_the_last_one_can_be_committed(ledger: Ledger) -> None:
    attempts = concurrently([partial(ledger.stages.begin, "s1", "docs", "datasets/docs/s1/")] * 4)
    assert sorted(attempt.number for attempt in attempts) == [1, 2, 3, 4]
    assert len({attempt.prefix for attempt in attempts}) == 4
    won = concurrently([partial(commit, ledger, attempt, attempt.number) for attempt in attempts])
    assert [attempt.number for attempt, first in zip(attempts, won, strict=True) if first] == [4]
    assert ledger.stages.find("s1") == {"by": 4}


def test_a_window_is_judged_once(ledger: Ledger) -> None:
    windows = ledger.drift_windows
    assert windows.next_number("docs", "v1") == 0
    assert windows.record(0, verdict("w0"))
    assert not windows.record(0, verdict("w0-again"))
    assert windows.record(1, verdict("w1", minute=1))
    assert windows.record(0, verdict("w0-of-v2", version="v2", minute=2))
    assert windows.next_number("docs", "v1") == 2
    assert [found.drift_id for found in windows.verdicts("docs")] == ["w0", "w1", "w0-of-v2"]
    assert [found.drift_id for found in windows.verdicts("docs", "v2")] == ["w0-of-v2"]
