"""The ledger: what has arrived, what has been made of it, what is live. The truth next to the bucket's listing.

SQLite (WAL) by default, PostgreSQL by URL. Transactions on it take turns, and states move by compare-and-set, so that
two processes that want the same thing cannot both get it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from lake.errors import TidemillError
from lake.ledger.arrivals import Arrivals
from lake.ledger.heartbeats import Heartbeats
from lake.ledger.monitoring import DriftWindows
from lake.ledger.rollouts import Rollouts
from lake.ledger.stages import Stages
from lake.ledger.versions import Versions
from lake.ledger.wakeups import Wakeups
from lake.settings import Settings

__all__ = ["Ledger"]

_BUSY_TIMEOUT_S = 30
_LOCK = 0x7469_6465  # any number that nobody else takes in this database


class Ledger:
    """One connection pool and the books kept in it."""

    def __init__(self, settings: Settings) -> None:
        self.engine = _engine(settings)
        self.wakeups = Wakeups(self.engine)
        self.arrivals = Arrivals(self.engine)
        self.heartbeats = Heartbeats(self.engine)
        self.stages = Stages(self.engine)
        self.versions = Versions(self.engine)
        self.rollouts = Rollouts(self.engine, settings.replica_port_first)
        self.drift_windows = DriftWindows(self.engine)

    def migrate(self) -> None:
        """Bring the schema to the newest revision; a no-op when it is there. Raises TidemillError with a remedy."""
        with _explained(self.engine.url.render_as_string()), self.engine.begin() as connection:
            config = _alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def revision(self) -> tuple[str | None, str | None]:
        """The schema's revision and the newest one known to this code. Raises TidemillError with a remedy."""
        with _explained(self.engine.url.render_as_string()), self.engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        return current, ScriptDirectory.from_config(_alembic_config()).get_current_head()


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    return config


def _engine(settings: Settings) -> Engine:
    with _explained("TIDEMILL_DATABASE_URL"):
        url = make_url(settings.ledger_url)
    sqlite = url.get_backend_name() == "sqlite"
    with _explained(url.render_as_string()):
        engine = _sqlite(url) if sqlite else create_engine(url, pool_pre_ping=True)
    if url.get_backend_name() == "postgresql":

        @event.listens_for(engine, "begin")
        def _take_turns(connection: Connection) -> None:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    return engine


def _sqlite(url: URL) -> Engine:
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        # pysqlite would open transactions late; BEGIN IMMEDIATE below makes read-then-write atomic.
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _take_turns(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn the errors of opening a database into one with a remedy. `where` bears no password."""
    try:
        yield
    except (SQLAlchemyError, CommandError, ModuleNotFoundError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise TidemillError(
            f"ledger {where}",
            expected="a database that this version of Tidemill can open and write",
            got=f"{type(cause).__name__}: {' '.join(str(cause).split())}",
            remedy="check TIDEMILL_DATABASE_URL (or TIDEMILL_HOME), the rights, and the space on its disk",
        ) from error
