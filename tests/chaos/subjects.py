"""What struck stages work on: drops for the Beam job, versions of a tiny model for trainer, exporter and packager."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psutil

from flows.context import Context
from flows.tasks import checkpoint_of
from flows.watch import reconcile_model
from lake.records import Checkpoint, Dataset, ExportedModel
from tests.chaos.inputs import Inbox, Upload
from tests.chaos.warm import Warm, is_alive
from tests.chaos.world import World
from tests.servers import wait_until

DROPS_PER_MODEL = 6
STAGE_TIMEOUT_S = 120.0
OWNER = "harness"
TINY = "tiny"
N_TINY_DOCUMENTS = 60


class Child:
    """One run of a stage in a process of its own. It waits for `go`."""

    def __init__(self, world: World, warm: Warm, stage: str, model: str, subject: str) -> None:
        self._result = world.folder / f"result-{time.monotonic_ns()}.json"
        told: dict[str, Any] = {"name": stage, "model": model, "subject": subject, "result": str(self._result)}
        self.process: psutil.Process = warm.fork("tests.chaos.children:stage", world.logs / f"{stage}.log", **told)

    def go(self) -> None:
        self._result.with_name(f"{self._result.name}.go").touch()

    def wait(self) -> str | None:
        """Its error; None when it succeeded, "killed" when it told nothing."""
        wait_until("the stage ends", lambda: not is_alive(self.process), timeout_s=STAGE_TIMEOUT_S)
        return json.loads(self._result.read_text())["error"] if self._result.exists() else "killed"

    def signal(self, number: int) -> None:
        with suppress(psutil.NoSuchProcess):
            self.process.send_signal(number)


def run_stage(world: World, stage: str, model: str, subject: str) -> str | None:
    """Run a stage to its end. Returns its error."""
    warm = world.live if stage == "prepare" else world.training
    child = Child(world, warm, stage, model, subject)
    child.go()
    return child.wait()


class Drops:
    """Drops of several objects, claimed and moved on by the harness in the flow's place."""

    def __init__(self, world: World) -> None:
        self._world, self._context = world, world.context
        self._n_models, self._n_drops = 0, DROPS_PER_MODEL
        self._n_listed = 0
        self._inbox: Inbox

    def next(self, seed: int) -> tuple[Inbox, str]:
        """A drop that waits to be prepared; by then, one of its objects is overwritten and one deleted."""
        if self._n_drops >= DROPS_PER_MODEL:
            self._n_models, self._n_drops = self._n_models + 1, 0
            self._inbox = self._world.inbox(f"stages-{self._n_models}")
            self._inbox.register()
        self._n_drops += 1
        self._inbox.put_batch(seed)
        drop_id = claimed_drop(self._context, self._inbox.model)
        self._n_listed = len(self._inbox.uploads)
        self._inbox.change_batch(seed)
        return self._inbox, drop_id

    def settle(self, inbox: Inbox, drop_id: str) -> None:
        """The drop is prepared. What came meanwhile goes into the next one, or one of its own after the last."""
        settle_drop(self._context, inbox.model, drop_id)
        if self._n_drops >= DROPS_PER_MODEL:
            later = claimed_drop(self._context, inbox.model)
            if run_stage(self._world, "prepare", inbox.model, later) is None:
                settle_drop(self._context, inbox.model, later)

    def listed(self) -> list[Upload]:
        """What has to be in a drop by now."""
        return self._inbox.uploads if self._n_drops >= DROPS_PER_MODEL else self._inbox.uploads[: self._n_listed]


class Versions:
    """Versions of a tiny model, all trained with the same seed on the same data."""

    def __init__(self, world: World) -> None:
        self._world, self._context = world, world.context
        self._n_versions = 0

    def next(self, stage: str) -> tuple[Inbox, str]:
        """A version at which the stage is the next to run; earlier stages run here undisturbed if none is left."""
        if self._n_versions == 0:
            self._prepare()
        for version in reversed(self._context.ledger.versions.all(TINY)):
            if self._next_stage(version.version) == stage:
                return self._inbox, version.version
        self._n_versions += 1
        made = self._context.ledger.versions.allocate(
            model=TINY,
            training_key=f"point-{self._n_versions}",
            reason="manual",
            dataset_ids=self._dataset_ids,
            parent=None,
        )
        for earlier in ("train", "export", "package"):
            if earlier == stage:
                break
            error = run_stage(self._world, earlier, TINY, made.version)
            assert error is None, error
        return self._inbox, made.version

    def _next_stage(self, version: str) -> str | None:
        if checkpoint_of(self._context, TINY, version) is None:
            return "train"
        records = self._context.ledger.stages.records("export", TINY)
        if version not in {ExportedModel.model_validate(record).version for record in records}:
            return "export"
        found = self._context.ledger.versions.get(TINY, version)
        return "package" if found is not None and found.state == "candidate" else None

    def _prepare(self) -> None:
        folder = self._world.folder / "tiny-model"
        process = self._world.training.fork(
            "tests.chaos.children:tiny_model", self._world.logs / "tiny.log", folder=str(folder)
        )
        wait_until("the tiny model", lambda: not is_alive(process), timeout_s=60)
        self._inbox = self._world.inbox(TINY)
        self._inbox.register(base_model=f"file:{folder}")
        self._inbox.put_many(N_TINY_DOCUMENTS)
        drop_id = claimed_drop(self._context, TINY)
        error = run_stage(self._world, "prepare", TINY, drop_id)
        assert error is None, error
        self._dataset_ids = (settle_drop(self._context, TINY, drop_id),)


def claimed_drop(context: Context, model: str) -> str:
    """Close what is in the inbox into a drop and take it."""
    reconcile_model(context, model, settle_s=0.0)
    now = datetime.now(UTC)
    drop_id = next(state.drop_id for state in context.ledger.drops.states(model) if state.state == "closed")
    assert context.ledger.drops.claim(drop_id, OWNER, now) is not None
    return drop_id


def settle_drop(context: Context, model: str, drop_id: str) -> str:
    """Move a prepared drop on. Returns its dataset's id."""
    records = map(Dataset.model_validate, context.ledger.stages.records("prepare", model))
    dataset_id = next(record.dataset_id for record in records if record.drop_id == drop_id)
    now = datetime.now(UTC)
    context.ledger.drops.move(drop_id, "preparing", "waiting", now, held_by=OWNER, dataset_id=dataset_id)
    return dataset_id


def validation_losses(context: Context) -> dict[str, float]:
    """By version of the tiny model."""
    found = map(Checkpoint.model_validate, context.ledger.stages.records("train", TINY))
    return {checkpoint.version: checkpoint.validation_loss for checkpoint in found}
