"""A ledger in PostgreSQL when its server goes away and comes back, and how its URL is written."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.engine import LedgerAway
from lake.settings import Settings
from tests.postgresql import PostgreSQL

TIMEOUTS = {"lock_timeout": "30s", "idle_in_transaction_session_timeout": "20s"}


@pytest.fixture
def running(postgresql_server: PostgreSQL) -> Iterator[PostgreSQL]:
    """The server, which the test may stop and start. It runs again afterwards."""
    yield postgresql_server
    postgresql_server.stop()
    postgresql_server.start()


@pytest.fixture
def opened(postgresql_server: PostgreSQL, settings: Settings, request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """A migrated ledger by the URL as a user writes it."""
    database = request.node.name[:60]
    url = postgresql_server.create(database, "migrated")
    ledger = Ledger(settings.model_copy(update={"database_url": url}))
    yield ledger
    ledger.engine.dispose()
    postgresql_server.drop(database)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_url_is_taken_as_users_write_it(opened: Ledger, settings: Settings, scheme: str) -> None:
    written = opened.engine.url.set(drivername=scheme).render_as_string(hide_password=False)
    ledger = Ledger(settings.model_copy(update={"database_url": written}))
    ledger.heartbeats.beat("me")
    assert [found.owner for found in opened.heartbeats.all()] == ["me"]
    ledger.engine.dispose()


def test_a_server_that_is_away_is_told_with_a_remedy(opened: Ledger, running: PostgreSQL) -> None:
    opened.heartbeats.beat("me")
    running.stop()
    with pytest.raises(LedgerAway) as caught:
        opened.heartbeats.beat("me")
    for call in (opened.migrate, opened.revision, opened.versions.all):
        with pytest.raises(TidemillError, match=r"expected a database server that answers, got .*refused"):
            call()
    assert f"127.0.0.1:{running.port}" in caught.value.where
    assert "TIDEMILL_DATABASE_URL" in caught.value.remedy
    assert running.password not in str(caught.value)


def test_a_ledger_goes_on_when_its_server_has_been_restarted(opened: Ledger, running: PostgreSQL) -> None:
    opened.heartbeats.beat("me")
    running.stop()
    running.start()
    opened.heartbeats.beat("me")  # on a connection of the pool, which the server has ended
    assert [found.beat for found in opened.heartbeats.all()] == [2]


def test_what_a_restart_interrupts_has_not_happened(opened: Ledger, running: PostgreSQL) -> None:
    with pytest.raises(LedgerAway), opened.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO heartbeats (owner, beat) VALUES ('me', 7)")
        running.stop()
        running.start()
        connection.exec_driver_sql("SELECT 1")
    assert opened.heartbeats.all() == []
    opened.heartbeats.beat("me")
    assert [found.beat for found in opened.heartbeats.all()] == [1]


def test_a_process_that_stops_in_its_turn_loses_it(opened: Ledger) -> None:
    with opened.engine.connect() as connection:
        told = {name: connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in TIMEOUTS}
    assert told == TIMEOUTS
    with pytest.raises(LedgerAway, match="idle-in-transaction"), opened.engine.begin() as paused:
        paused.exec_driver_sql("INSERT INTO heartbeats (owner, beat) VALUES ('paused', 7)")
        paused.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '300ms'")  # the test's patience
        opened.heartbeats.beat("me")  # waits for that
        paused.exec_driver_sql("SELECT 1")
    assert [found.owner for found in opened.heartbeats.all()] == ["me"]


def test_a_wrong_password_is_told_without_it(opened: Ledger, settings: Settings) -> None:
    wrong = opened.engine.url.set(password="not-this-one").render_as_string(hide_password=False)
    with pytest.raises(TidemillError, match="password authentication failed") as caught:
        Ledger(settings.model_copy(update={"database_url": wrong})).migrate()
    assert "not-this-one" not in str(caught.value)


def test_the_error_can_be_handed_to_another_process() -> None:
    told = LedgerAway("ledger x", expected="a server", got="none", remedy="start it")
    again = pickle.loads(pickle.dumps(told))
    assert (type(again), str(again), again.remedy) == (LedgerAway, str(told), "start it")
    assert isinstance(again, ConnectionError)
