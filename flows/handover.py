"""From the ledger to the flows: what waits is handed over, what died is taken up again. Asked again and again."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from flows import pipeline as flows
from flows.complaints import Complaints
from flows.context import Context
from flows.erase import resume_erasures
from flows.monitor import confirmed_drift, new_window
from flows.purge import purge_tainted, rebuilds_due
from flows.reaper import Reaper
from flows.running import FlowThreads, made_run
from lake.ledger.drops import DropState
from lake.process_owner import process_owner

log = logging.getLogger("tidemill.serve")
RETRY_S = 30.0
ORPHANS_EVERY_S = 20.0
_UNFINISHED = ("preparing", "training", "waiting")


class Handover:
    """One `tick` after the other, in one thread. Nothing that it finds is in memory alone: the ledger has it all."""

    def __init__(self, context: Context, threads: FlowThreads, reaper: Reaper, complaints: Complaints) -> None:
        self.context, self._threads, self._reaper, self._complaints = context, threads, reaper, complaints
        self._tried_at: dict[str, float] = {}
        self._warmed: set[str] = set()

    def tick(self) -> None:
        """One look at the ledger: dead owners, erasures, closed drops, unfinished versions, traffic."""
        self._reaper.release_dead_owners()
        self._complaints.attempt("erasures", self._carry_on_erasures)
        for model in self.context.models():
            self._complaints.attempt(f"model {model}", partial(self._look_after, model))
        if self._is_due("orphans", ORPHANS_EVERY_S):
            self._complaints.attempt("flow runs", self._reaper.crash_orphaned_runs)

    def _look_after(self, model: str) -> None:
        recipe = self.context.recipe(model)
        self._warm_base_model(recipe.base_model)
        self._free_abandoned(model)
        self._take_next_drop(model)
        self._watch_drift(model)
        drops = self.context.ledger.drops.states(model, only=_UNFINISHED)
        if not _busy(drops) and not self._threads.in_hand(model, flows.pipeline, flows.retrain, flows.roll_out):
            self._resume_training(model, drops)
            self._start_training(model, drops)
            self._resume_rollout(model, drops)

    def _warm_base_model(self, name: str) -> None:
        """Convert a base model while its first drop is prepared. In a process of its own, which ends with its memory."""
        if name not in self._warmed:
            self._warmed.add(name)
            command = [sys.executable, "-m", "training.base_model", name, str(self.context.model_cache)]
            self._threads.do(f"base model {name}", lambda: subprocess.run(command, check=False))

    def _carry_on_erasures(self) -> None:
        """Finish what was erased, delete versions that have seen it, train anew what must be."""
        if self._is_due("erasures"):
            self._threads.do("erasures", self._erase)
        for model in rebuilds_due(self.context):
            if self._is_due(f"rebuild {model}"):
                self._threads.start(flows.retrain, model, "retrain", reason="erasure")

    def _erase(self) -> None:
        resume_erasures(self.context)
        purge_tainted(self.context)

    def _free_abandoned(self, model: str) -> None:
        """Give back drops of this process that no flow of it works on: a ledger or server was away when it ended."""
        drops = self.context.ledger.drops.states(model, only=("preparing", "training"))
        mine = [drop for drop in drops if drop.owner == process_owner()]
        preparing = {
            found.parameters["drop_id"] for found in self._threads.in_hand(model, flows.pipeline) if found.parameters
        }
        training = self._threads.in_hand(model, flows.pipeline, flows.retrain)
        if any(drop.drop_id not in preparing if drop.state == "preparing" else not training for drop in mine):
            reason = "its flow could not tell how it ended"
            released = self.context.ledger.drops.release(process_owner(), datetime.now(UTC), model=model, reason=reason)
            log.warning("drops %s: %s, taking them up again", ", ".join(released), reason)

    def _take_next_drop(self, model: str) -> None:
        """Hand the oldest closed drop over. The run is made before the drop is claimed: without Prefect it stays closed."""
        drop = self.context.ledger.drops.next_closed(model, datetime.now(UTC))
        if drop is None:
            return
        parameters = {"drop_id": drop.drop_id}
        # A replayed drop counts its attempts anew: the time of its last change tells them apart.
        key = f"{drop.drop_id}-{drop.attempts + 1}-{drop.updated_at:%Y%m%d%H%M%S%f}"
        run = made_run("pipeline/drop", key, parameters)
        if self.context.ledger.drops.claim(drop.drop_id, process_owner(), datetime.now(UTC), only=("closed",)):
            self._threads.submit(flows.pipeline, model, run, parameters)

    def _resume_training(self, model: str, drops: Sequence[DropState]) -> None:
        """A version whose process died: its datasets wait again, and the same training takes them up."""
        waiting = {drop.dataset_id for drop in drops}
        for version in self.context.ledger.versions.all(model):
            if not version.dataset_ids or not waiting.issuperset(version.dataset_ids):
                continue
            if version.state == "rejected":  # it has used its data up, and died before it said so
                for drop in drops:
                    if drop.dataset_id in version.dataset_ids:
                        now = datetime.now(UTC)
                        self.context.ledger.drops.move(drop.drop_id, "waiting", "trained", now, message=version.message)
            elif version.state in ("candidate", "ready") and self._is_due(f"resume {model}"):
                reason = version.reason if version.reason in ("drift", "erasure") else "manual"
                self._threads.start(flows.retrain, model, "retrain", reason=reason)

    def _start_training(self, model: str, drops: Sequence[DropState]) -> None:
        """Enough waits, and the process died before it made a version of it."""
        if not drops or not self._is_due(f"train {model}"):
            return
        # What was tried with these very data, and failed, waits for more data or an operator.
        waiting = {drop.dataset_id for drop in drops}
        tried = any(waiting == set(version.dataset_ids) for version in self.context.ledger.versions.all(model))
        if not tried and flows.enough_waits(self.context, model):
            self._threads.start(flows.retrain, model, "retrain", reason="manual")

    def _resume_rollout(self, model: str, drops: Sequence[DropState]) -> None:
        """A packaged version whose process died before it was offered to the traffic."""
        waiting = {drop.dataset_id for drop in drops}
        offered = {rollout.challenger for rollout in self.context.ledger.rollouts.of_model(model)}
        for version in self.context.ledger.versions.all(model):
            unoffered = version.state == "ready" and version.version not in offered
            if unoffered and waiting.isdisjoint(version.dataset_ids) and self._is_due(f"offer {model}"):
                self._threads.start(flows.roll_out, model, "roll-out", version=version.version, only_ready=True)

    def _watch_drift(self, model: str) -> None:
        rules = self.context.recipe(model).monitoring
        if not self._is_due(f"drift {model}", rules.interval_s):
            return
        if new_window(self.context, model):
            self._threads.start(flows.drift, model, "drift")
        verdict = confirmed_drift(self.context, model)
        drops = self.context.ledger.drops.states(model, only=_UNFINISHED)
        # Without new data the verdict waits: the next drop, however small, starts the retraining.
        if verdict is None or not rules.retrain or not drops or _busy(drops):
            return
        # The version that it has led to answers it: one retraining for each verdict, whoever dies on the way.
        versions = self.context.ledger.versions.all(model)
        if not any(version.reason == "drift" and version.created_at >= verdict.decided_at for version in versions):
            log.info("drift of %s is confirmed by %s: retraining", model, verdict.drift_id)
            self._threads.start(flows.retrain, model, "retrain", reason="drift")

    def _is_due(self, what: str, every_s: float = RETRY_S) -> bool:
        """Whether `what` was not tried within the last `every_s` seconds. A try that fails at once must not spin."""
        last = self._tried_at.get(what)
        if last is not None and time.monotonic() - last < every_s:
            return False
        self._tried_at[what] = time.monotonic()
        return True


def _busy(drops: Sequence[DropState]) -> bool:
    return any(drop.state in ("preparing", "training") for drop in drops)
