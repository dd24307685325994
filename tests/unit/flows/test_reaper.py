"""Who has died, told by processes, heartbeats and a steady clock; tests/integration has it with a Prefect server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Pending, Running, Scheduled, State

from flows import reaper
from flows.context import Context
from flows.reaper import OWNER_TAG, Pulse, Reaper, beating, run_owner
from lake.ledger import Ledger
from lake.process_owner import is_gone, process_owner
from lake.records import ObjectRef
from lake.settings import Settings

ELSEWHERE = "another-host:boot:1:1"


@pytest.fixture
def context(settings: Settings, ledger: Ledger) -> Context:
    return Context(settings)


@contextmanager
def child(flow_run_id: uuid.UUID | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process as a worker starts it."""
    env = {**os.environ, **({"PREFECT__FLOW_RUN_ID": str(flow_run_id)} if flow_run_id else {})}
    started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=env)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def owner_of(process: subprocess.Popen[bytes]) -> str:
    """The name that another process gives itself."""
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    host, boot_id, _, _ = process_owner().rsplit(":", 3)
    return f"{host}:{boot_id}:{process.pid}:{ticks}"


def run(state: State, pid: str | None = None, tags: tuple[str, ...] = (), run_id: uuid.UUID | None = None) -> FlowRun:
    return FlowRun(
        id=run_id or uuid.uuid4(), flow_id=uuid.uuid4(), state=state, infrastructure_pid=pid, tags=list(tags)
    )


def test_an_owner_is_gone_when_its_process_has_ended() -> None:
    assert not is_gone(process_owner())
    with child() as other:
        owner = owner_of(other)
        assert not is_gone(owner)
    assert is_gone(owner)


def test_a_process_id_given_to_another_process_is_another_owner() -> None:
    host, boot_id, pid, ticks = process_owner().rsplit(":", 3)
    assert is_gone(f"{host}:{boot_id}:{pid}:{int(ticks) - 1}")
    assert is_gone(f"{host}:00000000:{pid}:{ticks}")  # before the machine was started again
    assert is_gone(f"{host}:123:1764014400.00")  # as an earlier version wrote it
    assert not is_gone(ELSEWHERE)  # cannot be seen from here


def test_a_pulse_is_told_by_the_observer_s_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(reaper.time, "monotonic", lambda: now[0])
    pulse = Pulse()
    for now[0] in (0.0, 15.0, 30.0, 50.0):
        assert pulse.still_for_s("a", 1) == now[0]
    assert pulse.still_for_s("a", 2) == 0
    now[0] = 70.0
    assert pulse.still_for_s("a", 2) == 20
    assert pulse.still_for_s("b", 2) == 0


def test_nobody_dies_while_nobody_can_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger was away for ten minutes: no owner could beat, no observer could look."""
    now = [0.0]
    monkeypatch.setattr(reaper.time, "monotonic", lambda: now[0])
    pulse = Pulse()
    pulse.still_for_s("a", 1)
    now[0] = 600.0
    assert pulse.still_for_s("a", 1) < reaper.DEAD_AFTER_S


def test_beats_are_told_to_the_ledger_and_forgotten_at_the_end(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper, "BEAT_S", 0.01)
    with beating(context), beating(context, "run:1"):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            beats = {heart.owner: heart.beat for heart in context.ledger.heartbeats.all()}
            if len(beats) == 2 and all(beat > 2 for beat in beats.values()):
                break
    assert beats.keys() == {process_owner(), "run:1"}
    assert context.ledger.heartbeats.all() == []


def claimed(context: Context, owner: str) -> str:
    ref = ObjectRef(bucket="b", key="inbox/m/a", etag="e", size_bytes=1, last_modified=datetime.now(UTC))
    context.ledger.arrivals.reconcile("m", [[ref]], datetime.now(UTC))
    drop = context.ledger.arrivals.close_drop("m", 0, datetime.now(UTC))
    assert drop is not None
    assert context.ledger.drops.claim(drop.drop_id, owner, datetime.now(UTC)) is not None
    return drop.drop_id


def test_the_drops_of_an_ended_process_are_released_at_once(context: Context) -> None:
    with child() as other:
        drop_id = claimed(context, owner_of(other))
        assert Reaper(context).release_dead_owners() == []
    assert Reaper(context).release_dead_owners() == [drop_id]


def test_the_drops_of_a_heart_that_stands_still_are_released(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    drop_id = claimed(context, ELSEWHERE)
    context.ledger.heartbeats.beat(ELSEWHERE)
    now = [0.0]
    monkeypatch.setattr(reaper.time, "monotonic", lambda: now[0])
    watched = Reaper(context)
    for now[0] in (0.0, 20.0, 40.0, 55.0):
        assert watched.release_dead_owners() == []
    context.ledger.heartbeats.beat(ELSEWHERE)
    for now[0] in (70.0, 90.0, 110.0, 129.0):
        assert watched.release_dead_owners() == []
    now[0] = 131.0
    assert watched.release_dead_owners() == [drop_id]
    assert context.ledger.heartbeats.all() == []


def test_one_s_own_drops_are_never_released(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process was paused for longer than it takes to be thought dead."""
    claimed(context, process_owner())
    now = [0.0]
    monkeypatch.setattr(reaper.time, "monotonic", lambda: now[0])
    watched = Reaper(context)
    watched.release_dead_owners()
    now[0] = 1_000.0
    assert watched.release_dead_owners() == []


def test_a_worker_s_run_lives_as_long_as_its_process(context: Context) -> None:
    run_id = uuid.uuid4()
    watched = Reaper(context)
    with child(run_id) as process:
        for state in (Running(), Pending()):
            assert not watched.is_orphaned(run(state, str(process.pid), run_id=run_id))
            assert not watched.is_orphaned(run(state, f"host:{process.pid}", run_id=run_id))
            assert watched.is_orphaned(run(state, str(process.pid)))  # the number has gone to another run
    assert watched.is_orphaned(run(Running(), str(process.pid), run_id=run_id))


def test_a_process_that_nobody_has_reaped_is_gone(context: Context) -> None:
    run_id = uuid.uuid4()
    with child(run_id) as process:
        process.kill()
        deadline = time.monotonic() + 20
        of = run(Running(), str(process.pid), run_id=run_id)
        while not Reaper(context).is_orphaned(of) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert Reaper(context).is_orphaned(of)


def test_another_machine_s_run_is_known_by_its_heart(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Context(context.settings.model_copy(update={"database_url": context.settings.ledger_url}))
    of = run(Running(), "4000000")
    now = [0.0]
    monkeypatch.setattr(reaper.time, "monotonic", lambda: now[0])
    watched = Reaper(elsewhere)
    for now[0] in (0.0, 20.0, 40.0):
        assert not watched.is_orphaned(of)
    context.ledger.heartbeats.beat(run_owner(of.id))
    for now[0] in (50.0, 70.0, 90.0, 109.0):
        assert not watched.is_orphaned(of)
    now[0] = 111.0
    assert watched.is_orphaned(of)


def test_a_run_whose_heart_never_begins_to_beat_is_gone(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker died before it could tell the process' id."""
    of = run(Running())
    now = [0.0]
    monkeypatch.setattr(reaper.time, "monotonic", lambda: now[0])
    watched = Reaper(context)
    assert not any(watched.is_orphaned(of) for now[0] in (0.0, 20.0, 40.0, 60.0))
    now[0] = 61.0
    assert watched.is_orphaned(of)


def test_a_run_in_serve_ends_with_serve(context: Context) -> None:
    watched = Reaper(context)
    with child() as other:
        tags = (f"{OWNER_TAG}{owner_of(other)}",)
        assert not watched.is_orphaned(run(Running(), tags=tags))
        assert not watched.is_orphaned(run(Pending(), tags=tags))
    assert watched.is_orphaned(run(Running(), tags=tags))
    assert watched.is_orphaned(run(Pending(), tags=tags))
    taken_up = run(Pending(), tags=tags)
    watched.own_runs.add(str(taken_up.id))  # by this process, under the same key
    assert not watched.is_orphaned(taken_up)


def test_a_run_of_this_process_that_no_thread_works_on_is_gone(context: Context) -> None:
    """Prefect was away when it ended."""
    watched = Reaper(context)
    of = run(Running(), tags=(f"{OWNER_TAG}{process_owner()}",))
    assert watched.is_orphaned(of)
    watched.own_runs.add(str(of.id))
    assert not watched.is_orphaned(of)


def test_a_run_that_an_operator_has_started_again_belongs_to_its_worker(context: Context) -> None:
    run_id = uuid.uuid4()
    with child() as other:
        tags = (f"{OWNER_TAG}{owner_of(other)}",)
    with child(run_id) as process:
        assert not Reaper(context).is_orphaned(run(Running(), str(process.pid), tags, run_id))
    assert Reaper(context).is_orphaned(run(Running(), str(process.pid), tags, run_id))


def test_a_run_that_no_process_was_ever_started_for_is_gone_after_a_while(context: Context) -> None:
    """Its worker died while it was submitting it."""
    taken = Pending(name="Submitting")
    assert not Reaper(context).is_orphaned(run(taken))
    long_ago = taken.model_copy(update={"timestamp": datetime.now(UTC) - timedelta(minutes=4)})
    assert Reaper(context).is_orphaned(run(long_ago))


def test_a_run_that_waits_or_has_ended_is_not_gone(context: Context) -> None:
    for state in (Scheduled(), Completed()):
        for pid in ("4000000", None):
            assert not Reaper(context).is_orphaned(run(state, pid))
