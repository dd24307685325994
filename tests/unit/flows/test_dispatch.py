"""What can be told without a Prefect server; tests/integration/test_training_run.py has the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Pending, Running, Scheduled, State

from flows import dispatch
from flows.context import Context
from flows.dispatch import _patiently, _process_is_gone, read_progress
from lake.settings import Settings


def run(state: State, pid: str | None, started_at: datetime | None = None) -> FlowRun:
    return FlowRun(flow_id=uuid.uuid4(), state=state, infrastructure_pid=pid, start_time=started_at)


@pytest.fixture
def dead_pid() -> str:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return str(child.pid)


def gone(of: FlowRun, on_this_machine: bool = True) -> bool:
    return _process_is_gone(of, on_this_machine=on_this_machine)


def test_a_run_whose_process_ended_is_gone(dead_pid: str) -> None:
    assert gone(run(Running(), dead_pid))
    assert gone(run(Running(), f"some-host:{dead_pid}"))
    assert gone(run(Pending(), dead_pid))


def test_a_run_whose_process_lives_is_not_gone() -> None:
    assert not gone(run(Running(), str(os.getpid()), datetime.now(UTC)))
    assert not gone(run(Pending(), str(os.getpid())))


def test_a_process_id_given_to_a_later_process_does_not_count() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert gone(run(Running(), str(child.pid), datetime.now(UTC) - timedelta(hours=1)))
        assert not gone(run(Running(), str(child.pid), datetime.now(UTC)))
    finally:
        child.kill()
        child.wait()


def test_a_process_that_nobody_has_reaped_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    try:
        deadline = time.monotonic() + 20
        while not gone(run(Running(), str(child.pid))) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert gone(run(Running(), str(child.pid)))
    finally:
        child.wait()


def test_another_machines_processes_cannot_be_seen(dead_pid: str) -> None:
    assert not gone(run(Running(), dead_pid), on_this_machine=False)


def test_a_run_that_no_process_was_ever_started_for_is_gone_after_a_while() -> None:
    taken = Pending()
    assert not gone(run(taken, None))
    long_ago = taken.model_copy(update={"timestamp": datetime.now(UTC) - timedelta(minutes=4)})
    assert gone(run(long_ago, None))
    assert gone(run(long_ago, None), on_this_machine=False)


def test_a_run_that_waits_or_has_ended_is_not_gone(dead_pid: str) -> None:
    for state in (Scheduled(), Completed()):
        assert not gone(run(state, dead_pid))
        assert not gone(run(state, None))


def test_an_answer_is_waited_for_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "POLL_S", 0.01)
    n_asked = 0

    def ask() -> str:
        nonlocal n_asked
        n_asked += 1
        if n_asked < 4:
            raise httpx.ConnectError("connection refused")
        return "here"

    assert _patiently(ask) == "here"
    assert n_asked == 4


def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "POLL_S", 0.01)
    monkeypatch.setattr(dispatch, "SERVER_AWAY_S", 0.05)

    def ask() -> str:
        raise httpx.ReadTimeout("no answer")

    with pytest.raises(httpx.ReadTimeout):
        _patiently(ask)


def test_a_refusal_is_an_answer() -> None:
    def ask() -> str:
        request = httpx.Request("GET", "http://127.0.0.1/")
        raise httpx.HTTPStatusError("404", request=request, response=httpx.Response(404, request=request))

    with pytest.raises(httpx.HTTPStatusError):
        _patiently(ask)


def test_progress_is_none_before_it_is_told(settings: Settings) -> None:
    context = Context(settings)
    assert read_progress(context, "docs", "v1") is None
    path = context.progress_file("docs", "v1")
    path.parent.mkdir(parents=True)
    path.write_text('{"step": 3')  # not as this code writes it, by a rename
    assert read_progress(context, "docs", "v1") is None
    path.write_text('{"step": 3, "n_steps": 10}')
    assert read_progress(context, "docs", "v1") == {"step": 3, "n_steps": 10}
