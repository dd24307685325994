"""Opening the ledger's database: SQLite or PostgreSQL behind the same rules, errors with a remedy and no password."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.util.exc import CommandError
from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, ExceptionContext, make_url
from sqlalchemy.exc import SQLAlchemyError

from lake.errors import TidemillError

if TYPE_CHECKING:
    import psycopg  # a ledger in SQLite does without it

_BUSY_TIMEOUT_S = 30
_CONNECT_TIMEOUT_S = 10  # psycopg would wait for more than two minutes
# A process that is paused in the middle of its turn loses it, before those that wait for theirs give up.
_IDLE_TIMEOUT_S = 20
_LOCK = 0x7469_6465  # any number that nobody else takes in this database


class LedgerAway(TidemillError, ConnectionError):
    """The database server does not answer, or has ended the connection. What was not committed has not happened."""


def open_engine(ledger_url: str) -> Engine:
    """A connection pool whose transactions take turns. Raises TidemillError; does not connect to a server yet.

    `postgresql://` and `postgres://` are opened with psycopg 3. A server that comes back is found again by the next
    transaction; while it is away each one raises LedgerAway.
    """
    with explained("TIDEMILL_DATABASE_URL"):
        url = make_url(ledger_url)
    if "@" in (url.host or ""):
        raise TidemillError(
            "ledger TIDEMILL_DATABASE_URL",
            expected="one @ before the host",
            got="several",
            remedy="write an @ in the password of TIDEMILL_DATABASE_URL as %40, and other special characters likewise",
        )
    with explained(shown(url)):
        if url.get_backend_name() == "sqlite":
            return _sqlite(url)
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        return _postgresql(url) if url.drivername == "postgresql+psycopg" else create_engine(url, pool_pre_ping=True)


def shown(url: URL) -> str:
    """The URL without password and options: these may hold secrets too."""
    return url.set(query={}).render_as_string(hide_password=True)


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn the errors of opening a database into one with a remedy. `where` bears no password."""
    try:
        yield
    except TidemillError:
        raise
    except (SQLAlchemyError, CommandError, ModuleNotFoundError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise TidemillError(
            f"ledger {where}",
            expected="a database that this version of Tidemill can open and write",
            got=f"{type(cause).__name__}: {' '.join(str(cause).split())}",
            remedy="check TIDEMILL_DATABASE_URL (or TIDEMILL_HOME), the rights, and the space on its disk",
        ) from error


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


def _postgresql(url: URL) -> Engine:
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": str(_CONNECT_TIMEOUT_S)})
    engine = create_engine(url, pool_pre_ping=True)

    @event.listens_for(engine, "connect")
    def _configure(connection: psycopg.Connection, _record: object) -> None:
        connection.execute(f"SET lock_timeout = '{_BUSY_TIMEOUT_S}s'")
        connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_TIMEOUT_S}s'")
        connection.commit()

    @event.listens_for(engine, "begin")
    def _take_turns(connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    @event.listens_for(engine, "handle_error")
    def _tell(context: ExceptionContext) -> None:
        away = context.connection is None or context.is_disconnect
        if away and not context.is_pre_ping:  # the pool answers a failed ping itself, with a new connection
            raise LedgerAway(
                f"ledger {shown(url)}",
                expected="a database server that answers",
                got=" ".join(str(context.original_exception).split()),
                remedy="start it or check TIDEMILL_DATABASE_URL; nothing is lost, everything goes on when it is back",
            ) from context.original_exception

    return engine
