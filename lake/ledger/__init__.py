"""The ledger: what has arrived, what has been made of it, what is live. The truth next to the bucket's listing.

SQLite (WAL) by default, any SQLAlchemy database by URL. States move by compare-and-set, so that two processes that
want the same thing cannot both get it.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine

from lake.ledger.arrivals import Arrivals
from lake.ledger.monitoring import DriftWindows
from lake.ledger.rollouts import Rollouts
from lake.ledger.stages import Stages
from lake.ledger.versions import Versions
from lake.settings import Settings

__all__ = ["Ledger"]


class Ledger:
    """One connection pool and the five books kept in it."""

    def __init__(self, settings: Settings) -> None:
        self.engine = _engine(settings.ledger_url)
        self.arrivals = Arrivals(self.engine)
        self.stages = Stages(self.engine)
        self.versions = Versions(self.engine)
        self.rollouts = Rollouts(self.engine, settings.replica_port_first)
        self.drift_windows = DriftWindows(self.engine)

    def migrate(self) -> None:
        """Bring the schema to the newest revision; a no-op when it is there."""
        with self.engine.begin() as connection:
            config = _alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def revision(self) -> tuple[str | None, str | None]:
        """The schema's revision and the newest one known to this code."""
        with self.engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        return current, ScriptDirectory.from_config(_alembic_config()).get_current_head()


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    return config


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    path = url.removeprefix("sqlite:///")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _configure(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]  # DBAPI connections are untyped
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA busy_timeout=30000")
        cursor.close()
        # pysqlite would open transactions late; BEGIN IMMEDIATE below makes read-then-write atomic.
        connection.isolation_level = None  # type: ignore[attr-defined]

    @event.listens_for(engine, "begin")
    def _begin(connection: object) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # type: ignore[attr-defined]

    return engine
