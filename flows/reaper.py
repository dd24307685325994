"""Heartbeats of what works, and the end of what no longer does: dead owners, orphaned flow runs."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Crashed

from flows.context import Context
from lake.process_owner import is_gone, process_owner

log = logging.getLogger("tidemill.reaper")

BEAT_S = 5.0
# An owner whose heart stands still for so long is taken for dead. If it wakes up again it can commit nothing.
DEAD_AFTER_S = 60.0
# A worker starts the process within seconds of taking a run. One that dies in between leaves the run pending for ever.
PENDING_FOR = timedelta(minutes=3)
OWNER_TAG = "owner:"
RUN_PREFIX = "run:"
# Of the time between two looks at a heart no more counts as standing still: who looks was away, or the ledger.
RAREST_LOOK_S = 20.0
# A heart that stands still and holds nothing.
FORGOTTEN_AFTER_S = 3_600.0


@contextlib.contextmanager
def beating(context: Context, owner: str | None = None) -> Iterator[None]:
    """Beat in the name of this process, or of another owner in it, for as long as the block takes."""
    stopped = threading.Event()
    name = owner or process_owner()

    def beat() -> None:
        while not stopped.is_set():
            with contextlib.suppress(Exception):  # a ledger that is away for a moment costs a beat, not the work
                context.ledger.heartbeats.beat(name)
            stopped.wait(BEAT_S)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        with contextlib.suppress(Exception):
            context.ledger.heartbeats.forget(name)


def run_owner(flow_run_id: object) -> str:
    """The name that a flow run beats by, in whatever process."""
    return f"{RUN_PREFIX}{flow_run_id}"


class Pulse:
    """How long each heart has stood still, told by this process' own steady clock: no clock step looks like a death.

    Only time in which one has looked counts: after a ledger was away for everybody, nobody is dead.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float, float]] = {}

    def still_for_s(self, owner: str, beat: int) -> float:
        """Seconds that the beat has been as it is now, as far as it was watched. 0 at the first look."""
        now = time.monotonic()
        last_beat, still_s, looked_at = self._seen.get(owner, (-1, 0.0, now))
        still_s = still_s + min(now - looked_at, RAREST_LOOK_S) if beat == last_beat else 0.0
        self._seen[owner] = (beat, still_s, now)
        return still_s


class Reaper:
    """Finds the dead among the owners of drops and among Prefect's runs."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.own_runs: set[str] = set()  # ids of the flow runs that go on in this process
        self._pulse = Pulse()

    def release_dead_owners(self) -> list[str]:
        """Give back the drops of owners that died, here or on another machine. Returns the drops' ids."""
        released = []
        beats = {heart.owner: heart.beat for heart in self.context.ledger.heartbeats.all()}
        holders = self.context.ledger.drops.owners()
        for owner in (holders | beats.keys()) - {process_owner()}:
            still_s = self._pulse.still_for_s(owner, beats.get(owner, 0))
            if not owner.startswith(RUN_PREFIX) and (is_gone(owner) or still_s > DEAD_AFTER_S):
                if owner in holders:
                    released += self.context.ledger.drops.release(owner, datetime.now(UTC))
                self.context.ledger.heartbeats.forget(owner)
            elif still_s > FORGOTTEN_AFTER_S:
                self.context.ledger.heartbeats.forget(owner)
        for drop_id in released:
            log.warning("drop %s: its process died, taking it up again", drop_id)
        return released

    def crash_orphaned_runs(self) -> int:
        """Tell Prefect which of its runs under way have lost their process. Returns how many."""
        under_way = FlowRunFilter(
            state=FlowRunFilterState(
                type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])
            )
        )
        n_crashed = 0
        with get_client(sync_client=True) as client:
            for run in client.read_flow_runs(flow_run_filter=under_way, limit=200):
                if self.is_orphaned(run):
                    crash(client, run)
                    n_crashed += 1
        return n_crashed

    def is_orphaned(self, run: FlowRun) -> bool:
        """Whether a run that is under way has lost its process. Prefect alone would leave it as it is.

        A run that a worker started has a process id without its machine: that is looked up only where all workers run,
        with a ledger in SQLite here. A run in `serve` bears its owner as a tag. Every run beats; one that has told
        nothing of itself is lost when it stays pending, or when it is running and its heart does not begin to beat.
        """
        if run.state is None or not (run.state.is_running() or run.state.is_pending() or run.state.is_cancelling()):
            return False
        pending = run.state.is_pending()
        if (run.infrastructure_pid or "").rpartition(":")[2].isdigit():
            if self.context.settings.database_url is None and _process_of(run) is None:
                return True
            return not pending and self._is_still(run_owner(run.id))
        if str(run.id) in self.own_runs:
            return False
        owner = next((tag.removeprefix(OWNER_TAG) for tag in run.tags if tag.startswith(OWNER_TAG)), None)
        if owner is not None and owner != process_owner() and (is_gone(owner) or self._is_still(owner)):
            return True
        if pending:
            return datetime.now(UTC) - run.state.timestamp > PENDING_FOR
        return owner == process_owner() or self._is_still(run_owner(run.id))

    def _is_still(self, owner: str) -> bool:
        """Whether an owner's heart has stopped, or has not begun to beat."""
        beats = {heart.owner: heart.beat for heart in self.context.ledger.heartbeats.all()}
        return self._pulse.still_for_s(owner, beats.get(owner, 0)) > DEAD_AFTER_S


def crash(client: SyncPrefectClient, run: FlowRun) -> None:
    """Declare a run crashed. Its process, should it only be paused on this machine, is ended: it holds a worker's slot."""
    process = _process_of(run)
    if process is not None:
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                member.kill()
    newest = client.read_flow_run(run.id)
    if newest.state is not None and newest.state.is_final():
        return
    crashed: State[Any] = Crashed(message="its process is gone")
    client.set_flow_run_state(run.id, crashed, force=True)
    log.warning("flow run %s: its process is gone", run.name)


def _process_of(run: FlowRun) -> psutil.Process | None:
    """The process on this machine that a worker started for the run; None when it has ended."""
    pid = (run.infrastructure_pid or "").rpartition(":")[2]
    try:
        process = psutil.Process(int(pid))
        # The number may have been given to another process since, as after a restart of the machine.
        same = process.environ().get("PREFECT__FLOW_RUN_ID") == str(run.id)
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (ValueError, psutil.Error):
        return None
