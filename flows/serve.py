"""`python -m flows.serve`: the long-lived process that watches the bucket and runs the light flows, imports warm."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime

from bentos.controller import open_target
from bentos.watchdog import Watchdog
from flows.complaints import Complaints
from flows.context import Context
from flows.experiment_report import ExperimentReports
from flows.handover import Handover
from flows.reaper import Reaper, beating
from flows.rollout_quality import RolloutQuality
from flows.running import FlowThreads
from flows.sqs import listen
from flows.watch import Watcher
from lake.errors import TidemillError
from lake.process_owner import process_owner

log = logging.getLogger("tidemill.serve")
EVENTS_EVERY_S = 1.0
HAND_OVER_EVERY_S = 5.0


class Server:
    """Three loops, so that none waits for another: one watches, one hands over, one gathers evidence of rollouts.

    Flows run in threads of their own.
    """

    def __init__(self, context: Context, warm: threading.Thread | None = None) -> None:
        """`warm` imports what flows need. No flow begins before it has ended: two threads that import a library by
        different ways leave it half imported, for as long as the process lives."""
        self.context = context
        self._warm = warm
        self.stopping = threading.Event()
        self._complaints = Complaints(log)
        self._watcher = Watcher(context, self._complaints.tell)
        self._news = threading.Event()  # a drop was closed, or a flow has ended
        reaper = Reaper(context)
        threads = FlowThreads(reaper.own_runs, self._news.set)
        self._handover = Handover(context, threads, reaper, self._complaints)
        self._quality = RolloutQuality(context, self._complaints)
        self._reports = ExperimentReports(context)

    def run(self) -> None:
        """Take up what earlier processes left, then watch and hand over until told to stop.

        Nothing ends that: a store, database or Prefect server that is away is complained about once, and the listing
        tells later what has come meanwhile.
        """
        with beating(self.context):
            threading.Thread(target=self._watch, name="watch", daemon=True).start()
            gather = self._quality.run
            threading.Thread(target=gather, args=(self.stopping,), name="rollout evidence", daemon=True).start()
            if self.context.settings.sqs_queue_url:
                arguments = (self.context, self.stopping, self.wake)
                threading.Thread(target=listen, args=arguments, name="sqs", daemon=True).start()
            watchdog = Watchdog(self.context.ledger, lambda: open_target(self.context.settings))
            threading.Thread(target=watchdog.run, args=(self.stopping,), name="watchdog", daemon=True).start()
            while self._warm is not None and self._warm.is_alive() and not self.stopping.is_set():
                self._warm.join(timeout=0.2)
            while not self.stopping.is_set():
                started = time.monotonic()
                self._complaints.attempt("handing over", self._handover.tick)
                self._complaints.attempt("reports of experiments", self._reports.tick)
                every_s = min(self.context.settings.poll_interval_s, HAND_OVER_EVERY_S)
                self._news.wait(max(0.0, every_s - (time.monotonic() - started)))
                self._news.clear()

    def wake(self) -> None:
        """Something may have come: look now."""
        self._watcher.wake.set()

    def stop(self) -> None:
        self.stopping.set()
        self._news.set()
        self.wake()

    def _watch(self) -> None:
        settings = self.context.settings
        while not self.stopping.is_set():
            started = time.monotonic()
            self._complaints.attempt("watching", self._look)
            until = started + settings.poll_interval_s
            if self._watcher.settling():  # counted from now: what came has been entered in the course of this look
                until = min(until, time.monotonic() + settings.settle_s)
            self._rest(until)

    def _look(self) -> None:
        if self._watcher.tick():
            self._news.set()

    def _rest(self, until: float) -> None:
        """Wait for the next look, or for an event: this process tells of its own, others leave theirs in the ledger."""
        while (left_s := until - time.monotonic()) > 0:
            if self._watcher.wake.wait(min(left_s, EVENTS_EVERY_S)):
                break
            if left_s > EVENTS_EVERY_S and self._watcher.is_woken():
                break
        self._watcher.wake.clear()


def _warm_imports() -> None:
    """Import what the first drop will need while nothing waits for it: seconds each, and Beam and GX are the slow ones."""
    for name in ("apache_beam", "great_expectations", "beam_jobs.prepare", "checks.data"):
        importlib.import_module(name)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("tidemill").setLevel(logging.INFO)  # Prefect has set up logging before, for itself alone
    logging.getLogger("httpx").setLevel(logging.WARNING)
    warm = threading.Thread(target=_warm_imports, daemon=True)
    server = Server(Context.from_environment(), warm)
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    signal.signal(signal.SIGINT, lambda *_: server.stop())
    warm.start()
    server.run()
    # Flows in threads may wait for minutes, for a training say. Their runs and drops are taken up at the next start.
    with suppress(TidemillError):
        server.context.ledger.drops.release(process_owner(), datetime.now(UTC), reason=None)
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
