from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flows.context import Context
from flows.lineage import Node, lineage
from lake.bucket import Bucket
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.records import Bento, Checkpoint, Dataset, ExportedModel, Record
from lake.settings import Settings
from tests.stages import commit_record

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def context(settings: Settings, bucket: Bucket, ledger: Ledger) -> Context:
    return Context(settings)


def commit(ledger: Ledger, stage: str, identity: str, record: Record) -> None:
    commit_record(ledger, stage, "docs", identity, record)


def drop(context: Context, dataset_id: str, objects: dict[str, bytes], minute: int) -> str:
    """Objects that arrived together, and the dataset made of them. Returns the drop's id."""
    for name, body in objects.items():
        context.bucket.put(f"inbox/docs/{name}", body)
    now = NOW + timedelta(minutes=minute)
    context.ledger.arrivals.reconcile("docs", context.bucket.pages("inbox/docs/"), now)
    closed = context.ledger.arrivals.close_drop("docs", 0, now)
    assert closed is not None
    assert context.ledger.drops.move(closed.drop_id, "closed", "waiting", now, dataset_id=dataset_id)
    prefix = f"datasets/docs/{dataset_id}/"
    context.bucket.put(f"{prefix}shards/train-00000.parquet", b"a shard")
    dataset = Dataset(
        dataset_id=dataset_id,
        model="docs",
        drop_id=closed.drop_id,
        prefix=prefix,
        history_ids=(),
        n_objects=len(objects),
        n_read=10,
        n_kept=8,
        rejected={"too_short": 2},
        redacted={},
        n_documents={"train": 8},
        n_characters={"train": 8_000},
    )
    commit(context.ledger, "prepare", dataset_id, dataset)
    return closed.drop_id


def version(context: Context, name: str, dataset_id: str, parent: str | None) -> None:
    """A version with all that was made of it."""
    context.ledger.versions.allocate(
        model="docs", training_key=f"key-{name}", reason="drop", dataset_ids=(dataset_id,), parent=parent
    )
    checkpoint = Checkpoint(
        checkpoint_id=f"checkpoint-{name}",
        model="docs",
        version=name,
        dataset_ids=(dataset_id,),
        parent_version=parent,
        base_model="smollm2-135m-instruct",
        adapter_prefix=f"models/docs/{name}/adapter/",
        n_steps=40,
        n_tokens=40_960,
        train_loss=2.0,
        validation_loss=2.1,
        device="cpu",
        precision="fp32",
        duration_s=100,
        resumed_from_step=0,
        loss_curve_key="reports/docs/training/loss.png",
    )
    exported = ExportedModel(
        export_id=f"export-{name}",
        model="docs",
        version=name,
        variant="int8",
        onnx_prefix=f"models/docs/{name}/onnx/",
        size_bytes=270_000_000,
        parity_max_logit_diff=1e-4,
        parity_top1=1.0,
        perplexity_fp32=20.0,
        perplexity_variant=20.1,
        quantization_loss=0.005,
    )
    bento = Bento(
        bento_id=f"bento-{name}",
        tag=f"docs:{name}",
        model_tag=f"docs-onnx:{name}",
        model="docs",
        version=name,
        export_id=f"export-{name}",
        labels={},
        archive_key=f"models/docs/{name}/bento/bento.tar",
    )
    for stage, identity, record in (
        ("train", f"checkpoint-{name}", checkpoint),
        ("export", f"export-{name}", exported),
        ("package", f"bento-{name}", bento),
    ):
        commit(context.ledger, stage, identity, record)
    context.ledger.versions.crown("docs", name)


@pytest.fixture
def history(context: Context) -> tuple[str, str]:
    """Two drops, the second of which replaced an object of the first, and the versions trained on them."""
    first = drop(context, "dataset-1", {"a.txt": b"one", "b.txt": b"two"}, 0)
    version(context, "v1", "dataset-1", None)
    second = drop(context, "dataset-2", {"b.txt": b"two, corrected"}, 5)
    version(context, "v2", "dataset-2", "v1")
    return first, second


def find(node: Node, kind: str) -> list[Node]:
    """All nodes of a kind, top down."""
    return [*([node] if node.kind == kind else []), *(found for child in node.children for found in find(child, kind))]


def names(node: Node, kind: str) -> list[str]:
    return [found.name for found in find(node, kind)]


def test_a_version_leads_down_to_its_objects(context: Context, history: tuple[str, str]) -> None:
    tree = lineage(context, "docs/v1")
    assert (tree.kind, tree.name) == ("model", "docs/v1")
    assert [child.kind for child in tree.children] == ["bento", "export", "adapter", "dataset"]
    assert names(tree, "bento") == ["docs:v1"]
    assert find(tree, "export")[0].detail == "int8, models/docs/v1/onnx/"
    assert find(tree, "adapter")[0].detail == "40 steps on smollm2-135m-instruct, models/docs/v1/adapter/"
    assert find(tree, "dataset")[0].detail == "8 of 10 documents"
    assert names(tree, "shard") == [f"s3://{context.bucket.name}/datasets/docs/dataset-1/shards/train-00000.parquet"]
    assert names(tree, "drop") == [history[0]]
    assert names(tree, "object") == [f"s3://{context.bucket.name}/inbox/docs/{name}.txt" for name in "ab"]


def test_a_later_version_leads_to_its_parents_objects_too(context: Context, history: tuple[str, str]) -> None:
    tree = lineage(context, "docs/v2")
    assert names(tree, "model") == ["docs/v2", "docs/v1"]
    assert names(tree, "drop") == [history[1], history[0]]
    objects = find(tree, "object")
    assert [node.name.rpartition("/")[2] for node in objects] == ["b.txt", "a.txt", "b.txt"]
    assert objects[0].detail != objects[2].detail  # two versions of one key


def test_a_model_alone_is_its_champion(context: Context, history: tuple[str, str]) -> None:
    tree = lineage(context, "docs")
    assert tree.name == "docs/v2"
    assert tree.detail == "champion, trained because of drop"


def test_an_object_leads_up_to_every_version_that_saw_it(context: Context, history: tuple[str, str]) -> None:
    tree = lineage(context, "inbox/docs/a.txt")
    assert [node.detail for node in find(tree, "object version")] == [f"drop {history[0]}"]
    assert names(tree, "dataset") == ["dataset-1"]
    # v2 was trained on another dataset, and starts from v1's weights.
    assert [(node.name, node.detail) for node in find(tree, "model")] == [
        ("docs/v1", "retired"),
        ("docs/v2", "champion"),
    ]


def test_every_version_of_a_replaced_object_is_told_apart(context: Context, history: tuple[str, str]) -> None:
    tree = lineage(context, f"s3://{context.bucket.name}/inbox/docs/b.txt")
    old, new = tree.children
    assert old.name != new.name
    assert names(old, "model") == ["docs/v1", "docs/v2"]
    assert names(new, "model") == ["docs/v2"]


def test_an_object_that_has_only_just_arrived_has_no_drop(context: Context, history: tuple[str, str]) -> None:
    context.bucket.put("inbox/docs/c.txt", b"three")
    context.ledger.arrivals.reconcile("docs", context.bucket.pages("inbox/docs/"), NOW + timedelta(minutes=9))
    assert [child.detail for child in lineage(context, "inbox/docs/c.txt").children] == ["not in a drop yet"]


@pytest.mark.parametrize("subject", ["docs/v9", "other", "other/v1", ""])
def test_an_unknown_version_is_refused(context: Context, history: tuple[str, str], subject: str) -> None:
    with pytest.raises(TidemillError, match=f"lineage of {subject}: expected MODEL, MODEL/VERSION"):
        lineage(context, subject)


def test_an_unknown_object_is_refused(context: Context, history: tuple[str, str]) -> None:
    with pytest.raises(TidemillError, match=r"inbox/docs/none\.txt: expected an object that the ledger has seen"):
        lineage(context, "inbox/docs/none.txt")


def test_the_tree_is_told_as_json(context: Context, history: tuple[str, str]) -> None:
    told = lineage(context, "docs/v1").as_dict()
    assert told["name"] == "docs/v1"
    assert isinstance(told["children"], list)
    assert told["children"][0] == {"kind": "bento", "name": "docs:v1", "detail": "package bento-v1", "children": []}
