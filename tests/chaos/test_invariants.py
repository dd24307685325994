"""The harness can fail: every planted violation is found, and nothing is found where nothing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, update

from flows.context import Context
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.ledger.tables import drops, objects, stages
from lake.records import Dataset
from lake.settings import Settings
from lake.stage import run_stage
from tests.chaos.inputs import Inbox
from tests.chaos.invariants import violations
from tests.chaos.subjects import claimed_drop, settle_drop

pytestmark = pytest.mark.integration
MODEL = "planted"


@pytest.fixture
def context(settings: Settings, bucket: Bucket, ledger: Ledger) -> Context:
    return Context(settings)


@pytest.fixture
def inbox(context: Context) -> Inbox:
    """A batch that was dropped and prepared; by then one object was overwritten and one deleted."""
    inbox = Inbox(context.bucket, MODEL)
    inbox.register()
    inbox.put_batch(1)
    prepare(context, change=lambda: inbox.change_batch(1))
    prepare(context)
    return inbox


def prepare(context: Context, change: Callable[[], None] = lambda: None) -> None:
    from beam_jobs.prepare import prepare as run_job

    drop_id = claimed_drop(context, MODEL)
    change()
    drop = context.ledger.drops.get(drop_id)
    assert drop is not None
    run_stage(
        context.ledger,
        context.bucket,
        stage="prepare",
        model=MODEL,
        inputs=[drop_id],
        parameters={},
        package="beam_jobs",
        folder_of=lambda identity: f"datasets/{MODEL}/{identity}/",
        record_type=Dataset,
        build=lambda identity, prefix: run_job(
            drop, context.recipe(MODEL), context.address, identity, [], prefix=prefix
        ),
    )
    settle_drop(context, MODEL, drop_id)


def found(context: Context, inbox: Inbox) -> list[str]:
    return [f"{each.rule}: {each.evidence}" for each in violations(context, MODEL, inbox.uploads)]


def first_dataset(context: Context) -> Dataset:
    return Dataset.model_validate(context.ledger.stages.records("prepare", MODEL)[0])


def test_planted_violations_are_found_and_nothing_else(context: Context, inbox: Inbox) -> None:
    assert found(context, inbox) == []
    for plant, expected in PLANTS:
        undo = plant(context, inbox)
        told = found(context, inbox)
        assert any(each.startswith(expected) for each in told), (plant.__name__, told)
        undo()
        assert found(context, inbox) == [], plant.__name__


def execute(context: Context, statement: object) -> None:
    with context.ledger.engine.begin() as connection:
        connection.execute(statement)  # type: ignore[call-overload]


def an_upload_that_was_never_listed(context: Context, inbox: Inbox) -> Callable[[], None]:
    inbox.put("late.txt", b"late", {"object": "late"})

    def undo() -> None:
        inbox.delete("late.txt")

    return undo


def a_version_in_no_drop(context: Context, inbox: Inbox) -> Callable[[], None]:
    key = inbox.uploads[0].key
    with context.ledger.engine.connect() as connection:
        drop_id = connection.execute(objects.select().where(objects.c.key == key)).one().drop_id
    execute(context, update(objects).where(objects.c.key == key).values(drop_id=None))
    return lambda: execute(context, update(objects).where(objects.c.key == key).values(drop_id=drop_id))


def a_drop_under_way(context: Context, inbox: Inbox) -> Callable[[], None]:
    execute(context, update(drops).where(drops.c.model == MODEL).values(state="preparing"))
    return lambda: execute(context, update(drops).where(drops.c.model == MODEL).values(state="waiting"))


def a_dataset_of_the_same_drop(context: Context, inbox: Inbox) -> Callable[[], None]:
    record = first_dataset(context).model_dump(mode="json")
    row = {"stage_id": "again", "stage": "prepare", "model": MODEL, "duration_s": 1.0, "record": record}
    row |= {"manifest_key": f"{record['prefix']}manifest.json", "committed_at": datetime.now(UTC)}
    execute(context, stages.insert().values(row))
    return lambda: execute(context, delete(stages).where(stages.c.stage_id == "again"))


def a_shard_cut_short(context: Context, inbox: Inbox) -> Callable[[], None]:
    key = next(ref.key for ref in context.bucket.list(f"{first_dataset(context).prefix}shards/"))
    whole = context.bucket.get(key)
    context.bucket.put(key, whole[:100])
    return lambda: context.bucket.put(key, whole)


def a_shard_of_a_zombie(context: Context, inbox: Inbox) -> Callable[[], None]:
    return put_and_remove(context, f"{first_dataset(context).prefix}shards/train-late.parquet")


def a_folder_that_nobody_committed(context: Context, inbox: Inbox) -> Callable[[], None]:
    return put_and_remove(context, f"datasets/{MODEL}/unknown/shards/train-n000000.parquet")


def put_and_remove(context: Context, key: str) -> Callable[[], None]:
    context.bucket.put(key, b"late")
    return lambda: context.bucket.client.delete_object(Bucket=context.bucket.name, Key=key)


def a_missing_manifest(context: Context, inbox: Inbox) -> Callable[[], None]:
    key = f"{first_dataset(context).prefix}manifest.json"
    whole = context.bucket.get(key)
    context.bucket.client.delete_object(Bucket=context.bucket.name, Key=key)
    return lambda: context.bucket.put(key, whole)


def a_document_that_is_in_no_row(context: Context, inbox: Inbox) -> Callable[[], None]:
    documents = inbox.uploads[0].documents
    documents["line:99"] = "a document that was put, too"

    def undo() -> None:
        del documents["line:99"]

    return undo


def a_document_with_another_text(context: Context, inbox: Inbox) -> Callable[[], None]:
    documents = inbox.uploads[1].documents
    text = documents["object"]
    documents["object"] = f"{text} and more"

    def undo() -> None:
        documents["object"] = text

    return undo


def a_version_of_unknown_data(context: Context, inbox: Inbox) -> Callable[[], None]:
    context.ledger.versions.allocate(
        model=MODEL, training_key="k", reason="drop", dataset_ids=("unknown",), parent=None
    )
    context.ledger.versions.move(MODEL, "v1", "ready", expected=("candidate",))
    return lambda: context.ledger.versions.move(MODEL, "v1", "failed", expected=("ready",))


PLANTS = [
    (an_upload_that_was_never_listed, "lost: inbox/planted/late.txt"),
    (a_version_in_no_drop, "lost: inbox/planted/"),
    (a_drop_under_way, "stuck: drop d"),
    (a_dataset_of_the_same_drop, "twice: 2 datasets of drop d"),
    (a_shard_cut_short, "half-read: datasets/planted/"),
    (a_shard_of_a_zombie, "half-read: datasets/planted/"),
    (a_folder_that_nobody_committed, "half-read: datasets/planted/unknown/"),
    (a_missing_manifest, "half-read: manifest of prepare"),
    (a_document_that_is_in_no_row, "lost: inbox/planted/"),
    (a_document_with_another_text, "half-read: inbox/planted/"),
    (a_version_of_unknown_data, "lineage: planted/v1"),
]
