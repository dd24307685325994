"""The whole path, from a drop to a rollout. Every flow of Tidemill that an operator can start is here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows import tasks
from flows.context import Context
from flows.datasets import datasets_by_id, unread_objects
from flows.dispatch import run_training, wait_for_rollout
from flows.monitor import check_drift
from flows.prepare_task import prepare
from flows.reaper import beating, run_owner
from flows.watch import reconcile_model
from lake.errors import CheckFailed, GateRejected, StageTakenOver, TidemillError
from lake.ledger.versions import Version
from lake.process_owner import process_owner
from lake.records import Dataset, DriftVerdict, Drop, ExportedModel
from lake.stage import sweep as sweep_stages


@flow(name="pipeline", flow_run_name="pipeline {drop_id}")
def pipeline(drop_id: str) -> str:
    """Take one drop all the way: prepare → check → train → evaluate → export → package → roll out.

    Returns the outcome in words. A drop smaller than the recipe's `training.min_documents` waits, prepared and
    checked, for the next training.
    """
    with _working() as context:
        dataset = _prepared(context, _claimed(context, drop_id))
        if enough_waits(context, dataset.model):
            return _train_and_roll_out(context, dataset.model, "drop")
        return "too few documents wait for a training; more of them, drift or 'tidemill retrain' start it"


@flow(name="retrain", flow_run_name="retrain {model} ({reason})")
def retrain(model: str, reason: Literal["drift", "manual", "erasure"] = "manual") -> str:
    """Train on everything that has been dropped since the last training, however little. It must win its way in."""
    with _working() as context:
        if not _waiting_datasets(context, model):
            return "nothing has been dropped since the last training"
        return _train_and_roll_out(context, model, reason)


@flow(name="train", flow_run_name="train {model} {version}")
def train(model: str, version: str) -> ExportedModel:
    """Train → evaluate → export, in one process of the training pool: where the accelerator is."""
    with _working() as context:
        candidate = context.ledger.versions.get(model, version)
        if candidate is None:
            raise TidemillError(
                f"version {version} of {model}",
                expected="a version in the ledger",
                got="none",
                remedy="'tidemill models' lists the versions; 'tidemill retrain' makes one",
            )
        checkpoint = tasks.train(context, candidate)
        tasks.evaluate(context, checkpoint, candidate)
        return tasks.export(context, checkpoint)


@flow(name="roll-out", flow_run_name="roll out {model} {version}")
def roll_out(model: str, version: str, inject_error_rate: float = 0.0, only_ready: bool = False) -> str:
    """Offer a packaged version again, e.g. after a rollback. `inject_error_rate` is for drills: it fails requests.

    With `only_ready` nothing happens to a version that has been offered before.
    """
    with _working() as context:
        found = context.ledger.versions.get(model, version)
        if only_ready and (found is None or found.state != "ready"):
            return f"{model} {version} is {found.state if found else 'unknown'}: it has been offered before"
        bento = tasks.bento_of(context, model, version)
        if bento is None:
            raise TidemillError(
                f"version {version} of {model}",
                expected="a packaged version",
                got="none",
                remedy="'tidemill models' lists the versions and their states",
            )
        return wait_for_rollout(context, tasks.roll_out(context, bento, inject_error_rate))


@flow(name="reconcile")
def reconcile(model: str | None = None, settle_s: float = 0.0) -> dict[str, int]:
    """Compare the whole listings with the ledger and close what waits into drops; `serve` takes them from there."""
    with _working() as context:
        names = [model] if model else context.models()
        return {name: reconcile_model(context, name, settle_s) for name in names}


@flow(name="sweep")
def sweep() -> int:
    """Delete what attempts at stages have left that can never be committed. Returns the number of attempts swept."""
    with _working() as context:
        return sweep_stages(context.ledger, context.bucket)


@flow(name="drift", flow_run_name="drift {model}")
def drift(model: str) -> list[DriftVerdict]:
    """Judge every complete window of logged requests that has not been judged yet."""
    with _working() as context:
        return check_drift(context, model)


@flow(name="watch-drift")
def watch_drift() -> dict[str, int]:
    """Judge the windows of all models, on a schedule. Returns the number of windows judged for each."""
    with _working() as context:
        return {model: len(check_drift(context, model)) for model in context.models()}


def enough_waits(context: Context, model: str) -> bool:
    """Whether as many documents wait as the recipe wants for a training."""
    n_documents = sum(found.n_documents.get("train", 0) for found in _waiting_datasets(context, model))
    return n_documents >= context.recipe(model).training.min_documents


@contextmanager
def _working() -> Iterator[Context]:
    """The installation, for as long as a flow works in it: its process and its run beat."""
    context = Context.from_environment()
    with beating(context), beating(context, run_owner(flow_run.get_id())):
        yield context


def _prepared(context: Context, drop: Drop) -> Dataset:
    """The drop's dataset, checked, waiting for a training. What it could not read is noted in the ledger."""
    drop_id, owner = drop.drop_id, process_owner()
    try:
        dataset = prepare(context, drop_id)
        context.ledger.arrivals.mark_unread(drop_id, unread_objects(context, dataset))
        tasks.check(context, dataset)
    except CheckFailed as error:
        _moved(context, drop_id, "preparing", "refused", held_by=owner, message=str(error))
        raise
    except StageTakenOver:
        raise  # whoever has the drop now goes on with it, in this very process perhaps
    except Exception as error:
        context.ledger.drops.give_back(drop_id, owner, f"{type(error).__name__}: {error}", datetime.now(UTC))
        raise
    _moved(context, drop_id, "preparing", "waiting", held_by=owner, dataset_id=dataset.dataset_id, message=None)
    return dataset


def _claimed(context: Context, drop_id: str) -> Drop:
    """The drop, held by this process: claimed by the watcher before, or now when an operator starts the flow."""
    drop = context.ledger.drops.claim(drop_id, process_owner(), datetime.now(UTC))
    if drop is None:
        states = {state.drop_id: state for state in context.ledger.drops.states()}
        found = states.get(drop_id)
        raise TidemillError(
            f"drop {drop_id}",
            expected="a drop that is closed, refused or poison, and no other of its model under way",
            got=f"state {found.state}" if found else "no such drop",
            remedy="'tidemill runs' lists the drops and their states",
        )
    return drop


def _train_and_roll_out(context: Context, model: str, reason: str) -> str:
    """Train what waits. While it trains, its drops count as under way, so that no other training starts."""
    ledger, owner = context.ledger, process_owner()
    datasets = _waiting_datasets(context, model)
    drop_ids = [dataset.drop_id for dataset in datasets]
    if not ledger.drops.start_training(model, drop_ids, owner, datetime.now(UTC)):
        return "another training of the model is under way; what waits is trained on after it"
    version = None
    try:
        version = _allocated(context, model, datasets, reason)
        exported = run_training(context, version)
        bento = tasks.package(context, exported, version)
        tasks.require_clean(context, version)
    except BaseException as error:
        # A rejected challenger has still used up its data; after any other failure the data waits for the next try.
        rejected = isinstance(error, GateRejected)
        state = "trained" if rejected else "waiting"
        ended = ledger.drops.end_training(drop_ids, owner, state, str(error), datetime.now(UTC))
        if ended and version is not None and not rejected:
            ledger.versions.move(model, version.version, "failed", str(error), expected=("candidate", "ready"))
        raise
    if not ledger.drops.end_training(drop_ids, owner, "trained", version.version, datetime.now(UTC)):
        raise TidemillError(
            f"training of {model} {version.version}",
            expected="to be its only one",
            got="another process took it over, as this one seemed dead",
            remedy="nothing to do: that process goes on with it",
        )
    return wait_for_rollout(context, tasks.roll_out(context, bento))


def _allocated(context: Context, model: str, datasets: list[Dataset], reason: str) -> Version:
    champion = context.ledger.versions.champion(model)
    parent = champion.version if champion else None
    ids = tuple(sorted(dataset.dataset_id for dataset in datasets))
    recipe = context.recipe(model)
    # A training that starts from the base model instead is another one.
    shunned = context.ledger.taints.blocking(model, parent)
    told = "|".join([*ids, parent or "", *shunned, recipe.training.model_dump_json(), recipe.gate.model_dump_json()])
    version = context.ledger.versions.allocate(
        model=model,
        training_key=hashlib.sha256(told.encode()).hexdigest()[:32],
        reason=reason,
        dataset_ids=ids,
        parent=parent,
    )
    start = "the base" if shunned or parent is None else parent
    get_run_logger().info("%s %s: trains on %s, from %s", model, version.version, ", ".join(ids), start)
    return version


def _waiting_datasets(context: Context, model: str) -> list[Dataset]:
    """Datasets of drops that are prepared, checked and not trained on, oldest first."""
    ids = [
        state.dataset_id
        for state in context.ledger.drops.states(model)
        if state.state == "waiting" and state.dataset_id
    ]
    return [dataset for dataset in datasets_by_id(context, model, ids) if dataset.n_kept]  # all of one may be erased


def _moved(
    context: Context, drop_id: str, expected: str, state: str, *, held_by: str | None = None, **values: str | None
) -> None:
    if not context.ledger.drops.move(drop_id, expected, state, datetime.now(UTC), held_by=held_by, **values):
        raise TidemillError(
            f"drop {drop_id}",
            expected=f"state {expected}",
            got="another process moved it on",
            remedy="nothing to do: that process goes on with it",
        )
