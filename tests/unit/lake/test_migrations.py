"""Migrations: forward from every released revision with data in it, and by several processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData, Table, select
from sqlalchemy.engine import Connection

from lake.ledger import Ledger
from lake.settings import Settings
from tests.servers import ROOT

FIRST = "0001"
MIGRATE = "from lake.ledger import Ledger; from lake.settings import load_settings; Ledger(load_settings()).migrate()"
TIME = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)

# One row and more of each table as version 0.1.0 wrote them.
ROWS: dict[str, list[dict[str, Any]]] = {
    "drops": [
        {
            "drop_id": f"d-{state}",
            "model": "docs",
            "state": state,
            "closed_at": TIME,
            "updated_at": TIME,
            "owner": "host:1:2.00" if state in ("preparing", "training") else None,
            "attempts": 3 if state == "failed" else 1,
            "dataset_id": "ds-1" if state in ("waiting", "training", "trained") else None,
            "message": "the store was away" if state == "failed" else None,
        }
        for state in ("closed", "preparing", "waiting", "training", "trained", "refused", "failed")
    ],
    "objects": [
        {
            "bucket": "tidemill",
            "key": f"inbox/docs/{key}",
            "etag": "0123abcd",
            "model": "docs",
            "size_bytes": 5_000_000_000,
            "last_modified": TIME,
            "first_seen_at": TIME,
            "drop_id": drop_id,
            "state": state,
        }
        for key, state, drop_id in (
            ("waits.txt", "seen", None),
            ("ümlaut + 100%.txt", "assigned", "d-trained"),
            ("gone.txt", "deleted", None),
        )
    ],
    "stages": [
        {
            "stage_id": "s1",
            "stage": "prepare",
            "model": "docs",
            "manifest_key": "datasets/docs/s1/manifest.json",
            "record": {"dataset_id": "ds-1", "n_read": 3, "nested": {"ü": [1, 2.5, None]}},
            "committed_at": TIME,
            "duration_s": 1.5,
        }
    ],
    "versions": [
        {
            "model": "docs",
            "version": "v1",
            "number": 1,
            "training_key": "k1",
            "state": "champion",
            "reason": "drop",
            "dataset_ids": ["ds-1"],
            "parent": None,
            "message": None,
            "created_at": TIME,
            "live_at": TIME,
        }
    ],
    "replicas": [{"model": "docs", "version": "v1", "tag": "docs:v1", "port": 3100, "environment": {"A": "b"}}],
    "rollouts": [
        {
            "rollout_id": "docs-v1-1",
            "model": "docs",
            "challenger": "v1",
            "champion": None,
            "plan": {
                "steps": [{"stage": "canary", "share": 1.0, "min_requests": 30, "max_duration_s": 600}],
                "max_error_rate_increase": 0.03,
                "max_latency_ratio": 1.5,
            },
            "step_index": 2,
            "state": "promoted",
            "baseline": None,
            "started_at": TIME,
            "entered_at": TIME,
        }
    ],
    "rollout_decisions": [{"id": 7, "rollout_id": "docs-v1-1", "record": {"action": "promote"}, "decided_at": TIME}],
    "drift_windows": [
        {
            "drift_id": "w0",
            "model": "docs",
            "version": "v1",
            "number": 0,
            "record": {"drifted": True},
            "decided_at": TIME,
            "retrained": 1,
        }
    ],
}


def migrate_to(ledger: Ledger, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "lake" / "migrations"))
    with ledger.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def tables_of(connection: Connection) -> dict[str, Table]:
    """As the database has them, whatever the code says."""
    found = MetaData()
    found.reflect(connection)
    return {name: table for name, table in found.tables.items() if name != "alembic_version"}


def content(connection: Connection, tables: dict[str, Table]) -> dict[str, list[dict[str, Any]]]:
    """Every row of the tables, in the order of their keys."""
    return {
        name: [dict(row._mapping) for row in connection.execute(select(table).order_by(*table.primary_key.columns))]
        for name, table in tables.items()
    }


def as_first_released(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    """Bring the database to where version 0.1.0 left it. Returns its content."""
    migrate_to(ledger, FIRST)
    with ledger.engine.begin() as connection:
        tables = tables_of(connection)
        assert set(tables) == set(ROWS)
        for name, rows in ROWS.items():
            connection.execute(tables[name].insert(), rows)
        return content(connection, tables)


def test_everything_of_the_first_release_is_kept(unmigrated: Ledger) -> None:
    before = as_first_released(unmigrated)
    unmigrated.migrate()
    with unmigrated.engine.connect() as connection:
        tables = tables_of(connection)
        after = content(connection, tables)
    for row in before["drops"]:
        if row["state"] == "failed":
            row["state"] = "poison"
    for row in before["rollouts"]:
        del row["baseline"]  # of a step that has ended
        row["plan"] = after["rollouts"][0]["plan"]  # rewritten: see below
    kept = {name: [{column: row[column] for column in rows[0]} for row in after[name]] for name, rows in before.items()}
    assert kept == before
    # What a later revision has added is empty: nobody knew it then.
    added = [
        row[column] for name, rows in before.items() for row in after[name] for column in row.keys() - rows[0].keys()
    ]
    assert set(added) == {None, 0, -1, "release"}
    assert all(after[name] == [] for name in after.keys() - before.keys())


def test_the_books_read_what_the_first_release_wrote(unmigrated: Ledger) -> None:
    as_first_released(unmigrated)
    unmigrated.migrate()
    (rollout,) = unmigrated.rollouts.of_model("docs")
    assert [(check.metric, check.allowed) for check in rollout.plan.checks] == [
        ("error_rate", 0.03), ("latency_p50", 1.5),
    ]  # fmt: skip
    assert [step.share for step in rollout.plan.steps] == [0.99]
    states = {state.drop_id: state for state in unmigrated.drops.states("docs")}
    assert {state.state for state in states.values()} == {
        "closed", "preparing", "waiting", "training", "trained", "refused", "poison",
    }  # fmt: skip
    assert states["d-failed"].closed_at == TIME
    trained = unmigrated.drops.get("d-trained")
    assert trained is not None
    assert [(ref.key, ref.size_bytes) for ref in trained.objects] == [("inbox/docs/ümlaut + 100%.txt", 5_000_000_000)]
    champion = unmigrated.versions.champion("docs")
    assert champion is not None
    assert (champion.version, champion.dataset_ids, champion.live_at) == ("v1", ("ds-1",), TIME)
    assert unmigrated.stages.find("s1") == ROWS["stages"][0]["record"]
    assert [replica.environment for replica in unmigrated.rollouts.wanted_replicas()] == [{"A": "b"}]
    # A poisoned drop can be tried again, as a failed one could.
    unmigrated.drops.replay("d-failed", TIME)


def test_processes_that_migrate_at_once_both_succeed(unmigrated: Ledger, settings: Settings) -> None:
    before = as_first_released(unmigrated)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE],
            cwd=ROOT,
            env={**os.environ, **settings.environment()},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    current, newest = unmigrated.revision()
    assert current == newest
    with unmigrated.engine.connect() as connection:
        after = content(connection, tables_of(connection))
    assert {name: len(after[name]) for name in before} == {name: len(rows) for name, rows in before.items()}
