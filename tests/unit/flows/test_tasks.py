"""What tasks look up before they work; tests/integration/test_training_run.py runs them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from beam_jobs.parameters import CODE
from flows import reports
from flows.context import Context
from flows.datasets import checkpoint_of, datasets_by_id, history_of, seen_by
from flows.prepare_task import _committed_before
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.recipe import Recipe
from lake.records import Checkpoint, Dataset, Drop, ObjectRef
from lake.settings import Settings
from lake.stage import code_version, stage_id
from lake.tombstones import NOTHING_ERASED
from tests.stages import commit_record
from training.finetune import TrainProgress

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def context(settings: Settings, bucket: Bucket, ledger: Ledger) -> Context:
    return Context(settings)


@pytest.fixture
def drop(context: Context) -> Callable[..., None]:
    """One more drop of `docs` with the dataset made of it, brought to a state."""
    minutes = iter(range(1000))

    def make(dataset_id: str, state: str) -> None:
        now = NOW + timedelta(minutes=next(minutes))
        context.bucket.put(f"inbox/docs/{dataset_id}.txt", dataset_id.encode())
        context.ledger.arrivals.reconcile("docs", context.bucket.pages("inbox/docs/"), now)
        closed = context.ledger.arrivals.close_drop("docs", 0, now)
        assert closed is not None
        assert context.ledger.drops.move(closed.drop_id, "closed", "waiting", now, dataset_id=dataset_id)
        if state != "waiting":
            assert context.ledger.drops.move(closed.drop_id, "waiting", state, now)
        dataset = Dataset(
            dataset_id=dataset_id,
            model="docs",
            drop_id=closed.drop_id,
            prefix=f"datasets/docs/{dataset_id}/",
            history_ids=(),
            n_objects=1,
            n_read=1,
            n_kept=1,
            rejected={},
            redacted={},
            n_documents={"train": 1},
            n_characters={"train": 100},
        )
        commit(context, "prepare", dataset_id, dataset)

    return make


def commit(context: Context, stage: str, identity: str, record: Dataset | Checkpoint) -> None:
    commit_record(context.ledger, stage, "docs", identity, record)


def version(context: Context, dataset_ids: tuple[str, ...], parent: str | None) -> str:
    return context.ledger.versions.allocate(
        model="docs", training_key=str(dataset_ids), reason="drop", dataset_ids=dataset_ids, parent=parent
    ).version


def ids(datasets: list[Dataset]) -> list[str]:
    return [dataset.dataset_id for dataset in datasets]


def test_history_is_what_the_checks_let_through(context: Context, drop: Callable[..., None]) -> None:
    states = ("trained", "waiting", "training", "refused", "poison", "preparing")
    for state in states:
        drop(f"was-{state}", "waiting")  # a drop under way would hold up the next one
    for found, state in zip(context.ledger.drops.states("docs"), states, strict=True):
        context.ledger.drops.move(found.drop_id, "waiting", state, NOW)
    assert ids(history_of(context, "docs")) == ["was-trained", "was-waiting", "was-training"]
    assert history_of(context, "other") == []


def test_datasets_are_found_by_id_in_the_order_of_their_making(context: Context, drop: Callable[..., None]) -> None:
    for name in ("one", "two", "three"):
        drop(name, "waiting")
    assert ids(datasets_by_id(context, "docs", ["three", "one", "unknown"])) == ["one", "three"]


def test_a_version_has_seen_what_its_parents_saw(context: Context, drop: Callable[..., None]) -> None:
    for name in ("one", "two", "three", "four"):
        drop(name, "trained")
    first = version(context, ("one", "two"), None)
    second = version(context, ("three",), first)
    version(context, ("four",), None)
    assert ids(seen_by(context, "docs", second)) == ["one", "two", "three"]
    assert ids(seen_by(context, "docs", first)) == ["one", "two"]
    assert seen_by(context, "docs", None) == []


def test_a_versions_checkpoint_is_found(context: Context) -> None:
    def checkpoint(name: str) -> Checkpoint:
        return Checkpoint(
            checkpoint_id=f"checkpoint-{name}",
            model="docs",
            version=name,
            dataset_ids=("d",),
            parent_version=None,
            base_model="smollm2-135m-instruct",
            adapter_prefix=f"models/docs/{name}/adapter/",
            n_steps=1,
            n_tokens=1,
            train_loss=1.0,
            validation_loss=1.0,
            device="cpu",
            precision="fp32",
            duration_s=1.0,
            resumed_from_step=0,
            loss_curve_key="",
        )

    for name in ("v1", "v2"):
        commit(context, "train", f"checkpoint-{name}", checkpoint(name))
    assert checkpoint_of(context, "docs", "v2") == checkpoint("v2")
    assert checkpoint_of(context, "docs", "v3") is None
    assert checkpoint_of(context, "docs", None) is None


def test_progress_is_told_even_when_the_prefect_server_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(**_: object) -> None:
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(reports, "create_progress_artifact", lambda **_: uuid.uuid4())
    monkeypatch.setattr(reports, "update_progress_artifact", away)
    path = tmp_path / "work" / "progress.json"
    with reports.training_progress(path) as show:
        show(TrainProgress(step=3, n_steps=40, loss=2.34567, tokens_per_s=204.56, eta_s=185.04))
    assert json.loads(path.read_text()) == {
        "step": 3,
        "n_steps": 40,
        "loss": 2.3457,
        "tokens_per_s": 204.6,
        "eta_s": 185.0,
    }
    assert [path.name for path in path.parent.iterdir()] == ["progress.json"]
    assert "not shown in the Prefect UI: ConnectError" in caplog.text


def test_a_drop_prepared_before_is_not_prepared_against_another_history(
    context: Context, drop: Callable[..., None]
) -> None:
    """Its process died after the preparation, and another drop went ahead while it waited."""
    ref = ObjectRef(bucket="b", key="inbox/docs/a", etag="e", size_bytes=1, last_modified=NOW)
    mine = Drop(drop_id="d1", model="docs", objects=(ref,), closed_at=NOW)
    parameters = Recipe(name="docs").prepare.model_dump(mode="json")
    drop("was-there", "trained")
    identity = stage_id("prepare", ["d1", "was-there"], parameters, code_version(CODE))
    before = datasets_by_id(context, "docs", ["was-there"])
    changes = {"dataset_id": identity, "drop_id": "d1", "history_ids": ("was-there",)}
    commit(context, "prepare", identity, before[0].model_copy(update=changes))
    drop("came-meanwhile", "waiting")
    found = _committed_before(context, mine, parameters, NOTHING_ERASED)
    assert found is not None
    assert found.dataset_id == identity
    assert _committed_before(context, mine, {**parameters, "min_characters": 9}, NOTHING_ERASED) is None
