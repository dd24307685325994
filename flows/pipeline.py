"""The whole path, from a drop to a rollout. Every flow of Tidemill that an operator can start is here."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Literal

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows import tasks
from flows.context import Context, process_owner
from flows.datasets import datasets_by_id, unread_objects
from flows.dispatch import run_training, wait_for_rollout
from flows.monitor import check_drift
from flows.reaper import beating
from flows.watch import reconcile_model
from lake.errors import CheckFailed, GateRejected, TidemillError
from lake.ledger.versions import Version
from lake.records import Bento, Dataset, DriftVerdict, Drop, ExportedModel
from lake.stage import sweep as sweep_stages


@flow(name="pipeline", flow_run_name="pipeline {drop_id}")
def pipeline(drop_id: str) -> str:
    """Take one drop all the way: prepare → check → train → evaluate → export → package → roll out.

    Returns the outcome in words. A drop smaller than the recipe's `training.min_documents` waits, prepared and
    checked, for the next training.
    """
    context = Context.from_environment()
    with beating(context):
        dataset = _prepared(context, _claimed(context, drop_id))
        return _trained_if_enough(context, dataset.model)


@flow(name="retrain", flow_run_name="retrain {model} ({reason})")
def retrain(model: str, reason: Literal["drift", "manual", "erasure"] = "manual") -> str:
    """Train on everything that has been dropped since the last training, however little. It must win its way in."""
    context = Context.from_environment()
    if not _waiting_datasets(context, model):
        return "nothing has been dropped since the last training"
    with beating(context):
        return _train_and_roll_out(context, model, reason)


@flow(name="train", flow_run_name="train {model} {version}")
def train(model: str, version: str) -> ExportedModel:
    """Train → evaluate → export, in one process of the training pool: where the accelerator is."""
    context = Context.from_environment()
    candidate = context.ledger.versions.get(model, version)
    if candidate is None:
        raise TidemillError(
            f"version {version} of {model}",
            expected="a version in the ledger",
            got="none",
            remedy="'tidemill models' lists the versions; 'tidemill retrain' makes one",
        )
    run_id = flow_run.get_id()
    with beating(context, str(run_id)) if run_id else nullcontext():
        checkpoint = tasks.train(context, candidate)
        tasks.evaluate(context, checkpoint, candidate)
        return tasks.export(context, checkpoint)


@flow(name="roll-out", flow_run_name="roll out {model} {version}")
def roll_out(model: str, version: str, inject_error_rate: float = 0.0) -> str:
    """Offer a packaged version again, e.g. after a rollback. `inject_error_rate` is for drills: it fails requests."""
    context = Context.from_environment()
    records = (Bento.model_validate(found) for found in context.ledger.stages.records("package", model))
    bento = next((found for found in records if found.version == version), None)
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
    context = Context.from_environment()
    names = [model] if model else context.models()
    return {name: reconcile_model(context, name, settle_s) for name in names}


@flow(name="sweep")
def sweep() -> int:
    """Delete what attempts at stages have left that can never be committed. Returns the number of attempts swept."""
    context = Context.from_environment()
    return sweep_stages(context.ledger, context.bucket)


@flow(name="drift", flow_run_name="drift {model}")
def drift(model: str) -> list[DriftVerdict]:
    """Judge every complete window of logged requests that has not been judged yet."""
    return check_drift(Context.from_environment(), model)


@flow(name="watch-drift")
def watch_drift() -> dict[str, int]:
    """Judge the windows of all models, on a schedule. Returns the number of windows judged for each."""
    context = Context.from_environment()
    return {model: len(check_drift(context, model)) for model in context.models()}


def _prepared(context: Context, drop: Drop) -> Dataset:
    """The drop's dataset, checked, waiting for a training. What it could not read is noted in the ledger."""
    drop_id, owner = drop.drop_id, process_owner()
    try:
        dataset = tasks.prepare(context, drop)
        tasks.check(context, dataset)
    except CheckFailed as error:
        _moved(context, drop_id, "preparing", "refused", held_by=owner, message=str(error))
        raise
    except Exception as error:
        context.ledger.drops.give_back(drop_id, owner, f"{type(error).__name__}: {error}", datetime.now(UTC))
        raise
    context.ledger.arrivals.mark_unread(drop_id, unread_objects(context, dataset))
    _moved(context, drop_id, "preparing", "waiting", held_by=owner, dataset_id=dataset.dataset_id, message=None)
    return dataset


def _trained_if_enough(context: Context, model: str) -> str:
    waiting = _waiting_datasets(context, model)
    n_documents = sum(found.n_documents.get("train", 0) for found in waiting)
    needed = context.recipe(model).training.min_documents
    if n_documents < needed:
        return f"{n_documents} training documents wait, {needed} start a training; drift or 'tidemill retrain' do too"
    return _train_and_roll_out(context, model, "drop")


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
    datasets = _waiting_datasets(context, model)
    for dataset in datasets:
        _moved(context, dataset.drop_id, "waiting", "training", owner=process_owner())
    version = _allocated(context, model, datasets, reason)
    try:
        exported = run_training(context, version)
        bento = tasks.package(context, exported, version)
        tasks.require_clean(context, version)
    except BaseException as error:
        # A rejected challenger has still used up its data; after any other failure the data waits for the next try.
        rejected = isinstance(error, GateRejected)
        if not rejected:
            context.ledger.versions.move(model, version.version, "failed", str(error))
        _settle(context, datasets, "trained" if rejected else "waiting", str(error))
        raise
    _settle(context, datasets, "trained", f"{version.version}")
    return wait_for_rollout(context, tasks.roll_out(context, bento))


def _allocated(context: Context, model: str, datasets: list[Dataset], reason: str) -> Version:
    champion = context.ledger.versions.champion(model)
    parent = champion.version if champion else None
    ids = tuple(sorted(dataset.dataset_id for dataset in datasets))
    recipe = context.recipe(model)
    for earlier in context.ledger.versions.all(model):
        if earlier.state == "candidate" and earlier.dataset_ids != ids:
            context.ledger.versions.move(model, earlier.version, "failed", "superseded: more data came before it ended")
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


def _settle(context: Context, datasets: list[Dataset], state: str, message: str) -> None:
    for dataset in datasets:
        context.ledger.drops.move(dataset.drop_id, "training", state, datetime.now(UTC), message=message)


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
