from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from circus.commands.addwatcher import AddWatcher
from circus.watcher import Watcher
from hypothesis import given
from hypothesis import strategies as st

from bentos.arbiter import SupervisorError
from bentos.replicas import (
    DEFINITION,
    IDENTITY,
    Replicas,
    _is_taken,
    last_log_line,
    log_file,
    start_of,
)
from lake.ledger.rollout_state import Replica
from lake.settings import Settings, load_settings


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path)


def replica(**changes: object) -> Replica:
    values = {"model": "docs", "version": "v1", "tag": "docs:abc", "port": 3100, "environment": {}, **changes}
    return Replica.model_validate(values)


def test_a_replica_is_started_with_its_tag_port_home_and_name(here: Settings) -> None:
    start = start_of(here, replica(environment={"TIDEMILL_INJECT_ERROR_RATE": "0.5"}))
    assert start.command[0] == sys.executable
    assert {"docs:abc", "3100"} <= set(start.command)
    assert start.environment["BENTOML_HOME"] == str(here.home / "replicas" / "docs-v1" / "bentoml")
    assert start.environment["TIDEMILL_HOME"] == str(here.home)
    assert start.environment["TIDEMILL_INJECT_ERROR_RATE"] == "0.5"
    assert start.environment[IDENTITY] == "docs/v1"


@pytest.mark.parametrize(
    "changes",
    [{"tag": "docs:other"}, {"port": 3101}, {"environment": {"TIDEMILL_INJECT_ERROR_RATE": "0.5"}}],
)
def test_what_defines_a_replica_changes_its_definition(here: Settings, changes: dict[str, object]) -> None:
    assert start_of(here, replica(**changes)).definition != start_of(here, replica()).definition


def test_the_same_replica_has_the_same_definition(here: Settings) -> None:
    assert start_of(here, replica()).definition == start_of(here, replica()).definition


def test_circus_accepts_the_watcher(here: Settings, tmp_path: Path) -> None:
    start = start_of(here, replica())
    (here.home / "logs").mkdir()
    properties = start.watcher(tmp_path)
    AddWatcher().validate(properties)
    made = Watcher(properties["name"], properties["cmd"], args=properties["args"], **properties["options"])
    assert made.name == "replica-docs-v1"
    assert made.env[DEFINITION] == start.definition
    assert made.env["PATH"]  # of the supervisor: copy_env
    assert made.respawn
    made.stdout_stream.close()
    made.stderr_stream.close()


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1).filter(str.strip), max_size=5))
def test_the_last_words_of_a_replica(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    here = load_settings(home=tmp_path_factory.mktemp("log"))
    assert last_log_line(here, "docs", "v1") is None
    path = log_file(here, "docs", "v1")
    path.parent.mkdir()
    path.write_text("".join(f"{line}\n" for line in lines))
    found = last_log_line(here, "docs", "v1")
    if not lines:
        assert found is None
    else:
        assert found is not None
        assert lines[-1].strip().endswith(found.strip())
        assert len(found) <= 300


def test_a_port_is_taken_by_whoever_listens_or_is_bound() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        assert _is_taken(port)
        holder.listen()
        assert _is_taken(port)
    assert not _is_taken(port)


def test_a_supervisor_that_is_not_there_is_named(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentos.arbiter.CALL_TIMEOUT_S", 0.1)
    with pytest.raises(SupervisorError, match="tidemill up"):
        Replicas(here).reconcile([replica()], set())
