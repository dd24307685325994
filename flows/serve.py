"""`python -m flows.serve`: the long-lived process that watches the bucket and runs the light flows, imports warm."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.flows import Flow
from prefect.states import Pending

from flows import pipeline as flows
from flows.context import Context, process_owner
from flows.monitor import confirmed_drift, new_window
from flows.reaper import OWNER_TAG, Reaper, beating
from flows.sqs import listen
from flows.watch import Watcher
from lake.errors import TidemillError
from lake.ledger.drops import DropState

log = logging.getLogger("tidemill.serve")
RETRY_S = 30.0
EVENTS_EVERY_S = 1.0
HAND_OVER_EVERY_S = 5.0
ORPHANS_EVERY_S = 20.0
_UNFINISHED = ("preparing", "training", "waiting")


class Complaints:
    """Logs a standing problem once, not at every look, and once more when it is over."""

    def __init__(self) -> None:
        self._open: dict[str, str] = {}

    def tell(self, what: str, error: Exception | None) -> None:
        """`None`: `what` is well."""
        told = None if error is None else str(error)
        if told is None:
            if self._open.pop(what, None) is not None:
                log.info("%s: well again", what)
        elif self._open.get(what) != told:
            self._open[what] = told
            log.error("%s: %s", what, told)


class Server:
    """Two loops, so that neither waits for the other: one watches, one hands over. Flows run in threads of their own."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.stopping = threading.Event()
        self._complaints = Complaints()
        self._watcher = Watcher(context, self._complaints.tell)
        self._closed = threading.Event()
        self._reaper = Reaper(context)
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="flow")
        self._running: set[str] = set()
        self._tried_at: dict[str, float] = {}
        self._warmed: set[str] = set()

    def run(self) -> None:
        """Take up what earlier processes left, then watch and hand over until told to stop.

        Nothing ends that: a store, database or Prefect server that is away is complained about once, and the listing
        tells later what has come meanwhile.
        """
        with beating(self.context):
            threading.Thread(target=self._watch, name="watch", daemon=True).start()
            if self.context.settings.sqs_queue_url:
                arguments = (self.context, self.stopping, self.wake)
                threading.Thread(target=listen, args=arguments, name="sqs", daemon=True).start()
            while not self.stopping.is_set():
                started = time.monotonic()
                self._attempt("handing over", self.tick)
                every_s = min(self.context.settings.poll_interval_s, HAND_OVER_EVERY_S)
                self._closed.wait(max(0.0, every_s - (time.monotonic() - started)))
                self._closed.clear()

    def wake(self) -> None:
        """Something may have come: look now."""
        self._watcher.wake.set()

    def stop(self) -> None:
        self.stopping.set()
        self._closed.set()
        self.wake()

    def _watch(self) -> None:
        settings = self.context.settings
        while not self.stopping.is_set():
            started = time.monotonic()
            self._attempt("watching", self._look)
            until = started + settings.poll_interval_s
            if self._watcher.settling():
                until = started + min(settings.poll_interval_s, settings.settle_s)
            self._rest(until)

    def _rest(self, until: float) -> None:
        """Wait for the next look, or for an event: this process tells of its own, others leave theirs in the ledger."""
        while (left_s := until - time.monotonic()) > 0:
            if self._watcher.wake.wait(min(left_s, EVENTS_EVERY_S)):
                break
            if left_s > EVENTS_EVERY_S and self._watcher.is_woken():
                break
        self._watcher.wake.clear()

    def _look(self) -> None:
        if self._watcher.tick():
            self._closed.set()

    def tick(self) -> None:
        """One look at the ledger: dead owners, closed drops, unfinished versions, traffic."""
        self._reaper.release_dead_owners()
        for model in self.context.models():
            self._attempt(f"model {model}", partial(self._serve, model))
        if self._is_due("orphans", ORPHANS_EVERY_S):
            self._attempt("flow runs", self._reaper.crash_orphaned_runs)

    def _serve(self, model: str) -> None:
        recipe = self.context.recipe(model)
        self._warm_base_model(recipe.base_model)
        self._take_next_drop(model)
        self._resume_training(model)
        self._resume_rollout(model)
        self._watch_drift(model)

    def _attempt(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            self._complaints.tell(what, error)
        else:
            self._complaints.tell(what, None)

    def _warm_base_model(self, name: str) -> None:
        """Convert a base model while its first drop is prepared. In a process of its own, which ends with its memory."""
        if name not in self._warmed:
            self._warmed.add(name)
            command = [sys.executable, "-m", "training.base_model", name, str(self.context.model_cache)]
            self._pool.submit(subprocess.run, command, check=False)

    def _take_next_drop(self, model: str) -> None:
        """Hand the oldest closed drop over. The run is made before the drop is claimed: without Prefect it stays closed."""
        drop = self.context.ledger.drops.next_closed(model, datetime.now(UTC))
        if drop is None:
            return
        parameters = {"drop_id": drop.drop_id}
        # A replayed drop counts its attempts anew: the time of its last change tells them apart.
        key = f"{drop.drop_id}-{drop.attempts + 1}-{drop.updated_at:%Y%m%d%H%M%S%f}"
        run = self._made_run("pipeline/drop", key, parameters)
        if self.context.ledger.drops.claim(drop.drop_id, process_owner(), datetime.now(UTC)) is not None:
            self._submit(flows.pipeline, run, parameters)

    def _resume_training(self, model: str) -> None:
        """A candidate whose process died: its datasets wait again, and the same training takes them up."""
        drops = self.context.ledger.drops.states(model, only=_UNFINISHED)
        if _busy(drops):
            return
        waiting = {drop.dataset_id for drop in drops if drop.state == "waiting"}
        for version in self.context.ledger.versions.all(model):
            unfinished = version.state in ("candidate", "ready")
            if unfinished and waiting.issuperset(version.dataset_ids) and self._is_due(f"resume {model}"):
                reason = "drift" if version.reason == "drift" else "manual"
                self._start(flows.retrain, "retrain", None, model=model, reason=reason)

    def _resume_rollout(self, model: str) -> None:
        """A packaged version whose process died before it was offered to the traffic."""
        if _busy(self.context.ledger.drops.states(model, only=_UNFINISHED)):
            return
        offered = {rollout.challenger for rollout in self.context.ledger.rollouts.of_model(model)}
        for version in self.context.ledger.versions.all(model):
            unoffered = version.state == "ready" and version.version not in offered
            if unoffered and self._is_due(f"offer {model}"):
                self._start(flows.roll_out, "roll-out", None, model=model, version=version.version)

    def _is_due(self, what: str, every_s: float = RETRY_S) -> bool:
        """Whether `what` was not tried within the last `every_s` seconds. A try that fails at once must not spin."""
        last = self._tried_at.get(what)
        if last is not None and time.monotonic() - last < every_s:
            return False
        self._tried_at[what] = time.monotonic()
        return True

    def _watch_drift(self, model: str) -> None:
        rules = self.context.recipe(model).monitoring
        if not self._is_due(f"drift {model}", rules.interval_s):
            return
        if new_window(self.context, model):
            self._start(flows.drift, "drift", None, model=model)
        verdict = confirmed_drift(self.context, model)
        drops = self.context.ledger.drops.states(model, only=_UNFINISHED)
        # Without new data the claim stays open: the next drop, however small, starts the retraining.
        if verdict and rules.retrain and drops and not _busy(drops):
            parameters = {"model": model, "reason": "drift"}
            run = self._made_run("retrain/retrain", verdict.drift_id, parameters)
            if self.context.ledger.drift_windows.claim_retraining(verdict.drift_id):
                log.info("drift of %s is confirmed by %s: retraining", model, verdict.drift_id)
                self._submit(flows.retrain, run, parameters)

    def _start(self, flow: Flow[..., Any], deployment: str, key: str | None, **parameters: Any) -> None:
        """Run a flow in a thread, as a run of its deployment; one at a time for the same parameters."""
        if _identity(flow, parameters) not in self._running:
            self._submit(flow, self._made_run(f"{flow.name}/{deployment}", key, parameters), parameters)

    def _made_run(self, deployment: str, key: str | None, parameters: dict[str, Any]) -> FlowRun:
        """A run of the deployment, the same one for the same key. Raises when the Prefect server is away."""
        with get_client(sync_client=True) as client:
            found = client.read_deployment_by_name(deployment)
            # Pending, not Scheduled: a worker must not pick up what runs here.
            return client.create_flow_run_from_deployment(
                found.id,
                parameters=parameters,
                idempotency_key=key,
                state=Pending(),
                tags=[f"{OWNER_TAG}{process_owner()}"],
            )

    def _submit(self, flow: Flow[..., Any], run: FlowRun, parameters: dict[str, Any]) -> None:
        identity = _identity(flow, parameters)
        self._running.add(identity)
        self._pool.submit(self._run, identity, flow, run, parameters)

    def _run(self, identity: str, flow: Flow[..., Any], run: FlowRun, parameters: dict[str, Any]) -> None:
        try:
            run_flow(flow, flow_run=run, parameters=parameters)
        except TidemillError as error:
            log.error("%s: %s", identity, error)
        except Exception:
            log.exception("%s", identity)
        finally:
            self._running.discard(identity)


def _busy(drops: Sequence[DropState]) -> bool:
    return any(drop.state in ("preparing", "training") for drop in drops)


def _identity(flow: Flow[..., Any], parameters: dict[str, Any]) -> str:
    return f"{flow.name} {sorted(parameters.items())}"


def _warm_imports() -> None:
    """Import what the first drop will need while nothing waits for it: seconds each, and Beam and GX are the slow ones."""
    for name in ("apache_beam", "great_expectations", "beam_jobs.prepare", "checks.data"):
        importlib.import_module(name)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("tidemill").setLevel(logging.INFO)  # Prefect has set up logging before, for itself alone
    logging.getLogger("httpx").setLevel(logging.WARNING)
    server = Server(Context.from_environment())
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    signal.signal(signal.SIGINT, lambda *_: server.stop())
    threading.Thread(target=_warm_imports, daemon=True).start()
    server.run()
    # Flows in threads may wait for minutes, for a training say. Their runs and drops are taken up at the next start.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
