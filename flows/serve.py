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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.flows import Flow
from prefect.states import Crashed, Pending

from flows import pipeline as flows
from flows.context import Context, is_alive, process_owner
from flows.monitor import confirmed_drift, new_window
from flows.watch import reconcile_model
from lake.errors import RecipeError, TidemillError

log = logging.getLogger("tidemill.serve")
SERVE_TAG = "serve"
RETRY_S = 30.0


class Server:
    """Ticks once per poll interval; flows run in threads, so that a long one does not delay the next object."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.stopping = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="flow")
        self._running: set[str] = set()
        self._drift_checked_at: dict[str, float] = {}
        self._complained: dict[str, str] = {}
        self._tried_at: dict[str, float] = {}
        self._warmed: set[str] = set()

    def run(self) -> None:
        """Take up what an earlier process left, then watch until told to stop.

        Nothing ends the watch: a store, database or Prefect server that is away is complained about once, and the
        listing tells later what has come meanwhile.
        """
        stale_runs_crashed = False
        while not self.stopping.is_set():
            started = time.monotonic()
            try:
                if not stale_runs_crashed:
                    self._crash_stale_runs()
                    stale_runs_crashed = True
                self.tick()
                self._complained.pop("", None)
            except Exception as error:
                self._complain("", error)
            self.stopping.wait(max(0.0, self.context.settings.poll_interval_s - (time.monotonic() - started)))

    def tick(self) -> None:
        """One look at everything: dead owners, inboxes, unfinished versions, traffic."""
        self._release_dead_owners()
        for model in self.context.models():
            try:
                recipe = self.context.recipe(model)
            except RecipeError as error:
                self._complain(model, error)
                continue
            self._warm_base_model(recipe.base_model)
            self._complained.pop(model, None)
            reconcile_model(self.context, model, self.context.settings.settle_s)
            self._take_next_drop(model)
            self._resume_training(model)
            self._resume_rollout(model)
            self._watch_drift(model)

    def _warm_base_model(self, name: str) -> None:
        """Convert a base model while its first drop is prepared. In a process of its own, which ends with its memory."""
        if name not in self._warmed:
            self._warmed.add(name)
            command = [sys.executable, "-m", "training.base_model", name, str(self.context.model_cache)]
            self._pool.submit(subprocess.run, command, check=False)

    def _take_next_drop(self, model: str) -> None:
        """Hand the oldest closed drop over. The run is made before the drop is claimed: without Prefect it stays closed."""
        drop_id = self.context.ledger.arrivals.next_closed(model)
        if drop_id is None:
            return
        attempts = {state.drop_id: state.attempts for state in self.context.ledger.arrivals.states(model)}
        run = self._made_run("pipeline/drop", f"{drop_id}-{attempts[drop_id] + 1}", {"drop_id": drop_id})
        if self.context.ledger.arrivals.claim(drop_id, process_owner(), datetime.now(UTC)) is not None:
            self._submit(flows.pipeline, run, {"drop_id": drop_id})

    def _resume_training(self, model: str) -> None:
        """A candidate whose process died: its datasets wait again, and the same training takes them up."""
        arrivals = self.context.ledger.arrivals.states(model)
        if any(state.state in ("preparing", "training") for state in arrivals):
            return
        waiting = {state.dataset_id for state in arrivals if state.state == "waiting"}
        for version in self.context.ledger.versions.all(model):
            unfinished = version.state in ("candidate", "ready")
            if unfinished and waiting.issuperset(version.dataset_ids) and self._is_due(f"resume {model}"):
                reason = "drift" if version.reason == "drift" else "manual"
                self._start(flows.retrain, "retrain", None, model=model, reason=reason)

    def _resume_rollout(self, model: str) -> None:
        """A packaged version whose process died before it was offered to the traffic."""
        if any(state.state in ("preparing", "training") for state in self.context.ledger.arrivals.states(model)):
            return
        offered = {rollout.challenger for rollout in self.context.ledger.rollouts.of_model(model)}
        for version in self.context.ledger.versions.all(model):
            unoffered = version.state == "ready" and version.version not in offered
            if unoffered and self._is_due(f"offer {model}"):
                self._start(flows.roll_out, "roll-out", None, model=model, version=version.version)

    def _is_due(self, what: str) -> bool:
        """Whether `what` was not tried within the last RETRY_S seconds. A try that fails at once must not spin."""
        last = self._tried_at.get(what)
        if last is not None and time.monotonic() - last < RETRY_S:
            return False
        self._tried_at[what] = time.monotonic()
        return True

    def _watch_drift(self, model: str) -> None:
        rules = self.context.recipe(model).monitoring
        if time.monotonic() - self._drift_checked_at.get(model, -rules.interval_s) < rules.interval_s:
            return
        self._drift_checked_at[model] = time.monotonic()
        if new_window(self.context, model):
            self._start(flows.drift, "drift", None, model=model)
        verdict = confirmed_drift(self.context, model)
        busy = any(state.state in ("preparing", "training") for state in self.context.ledger.arrivals.states(model))
        waiting = any(state.state == "waiting" for state in self.context.ledger.arrivals.states(model))
        # Without new data the claim stays open: the next drop, however small, starts the retraining.
        if verdict and rules.retrain and waiting and not busy:
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
                found.id, parameters=parameters, idempotency_key=key, state=Pending(), tags=[SERVE_TAG]
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

    def _release_dead_owners(self) -> None:
        for owner in self.context.ledger.arrivals.owners():
            if not is_alive(owner):
                for drop_id in self.context.ledger.arrivals.release(owner, datetime.now(UTC)):
                    log.warning("drop %s: its process died, taking it up again", drop_id)

    def _crash_stale_runs(self) -> None:
        """Runs of an earlier process of ours that Prefect still believes to be running."""
        stale = FlowRunFilter(
            tags=FlowRunFilterTags(all_=[SERVE_TAG]),
            state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Running", "Pending"])),
        )
        with get_client(sync_client=True) as client:
            for run in client.read_flow_runs(flow_run_filter=stale):
                client.set_flow_run_state(run.id, Crashed(message="its process was restarted"), force=True)

    def _complain(self, model: str, error: Exception) -> None:
        """Log a standing problem once, not at every tick."""
        if self._complained.get(model) != str(error):
            self._complained[model] = str(error)
            log.error("%s", error)


def _identity(flow: Flow[..., Any], parameters: dict[str, Any]) -> str:
    return f"{flow.name} {sorted(parameters.items())}"


def _warm_imports() -> None:
    """Import what the first drop will need while nothing waits for it: seconds each, and Beam and GX are the slow ones."""
    for name in ("apache_beam", "great_expectations", "beam_jobs.prepare", "checks.data"):
        importlib.import_module(name)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    server = Server(Context.from_environment())
    stop: Callable[..., None] = lambda *_: server.stopping.set()  # noqa: E731  (a handler of two lines is no clearer)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=_warm_imports, daemon=True).start()
    server.run()
    # Flows in threads may wait for minutes, for a training say. Their runs and drops are taken up at the next start.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
