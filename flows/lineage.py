"""From a live model down to the source objects, and from an object up to every model that saw it."""

from __future__ import annotations

from dataclasses import dataclass, field

from flows.context import Context
from flows.tasks import datasets_by_id
from lake.errors import TidemillError
from lake.ledger.versions import Version
from lake.records import Bento, Checkpoint, Dataset, ExportedModel


@dataclass(frozen=True)
class Node:
    """One thing in the lineage, with what it came from (or, going up, what was made of it)."""

    kind: str
    name: str
    detail: str = ""
    children: tuple[Node, ...] = field(default=())

    def as_dict(self) -> dict[str, object]:
        return {
            "kind": self.kind,
            "name": self.name,
            "detail": self.detail,
            "children": [child.as_dict() for child in self.children],
        }


def lineage(context: Context, subject: str) -> Node:
    """Trace `model/version` down or an object (`s3://bucket/key` or `inbox/…`) up. Raises TidemillError if unknown."""
    if subject.startswith("s3://"):
        return _object_up(context, subject.removeprefix("s3://").partition("/")[2])
    if subject.startswith("inbox/"):
        return _object_up(context, subject)
    model, _, name = subject.partition("/")
    version = context.ledger.versions.get(model, name) if name else context.ledger.versions.champion(model)
    if version is None:
        raise TidemillError(
            f"lineage of {subject}",
            expected="MODEL, MODEL/VERSION (as in the x-tidemill-model header), s3://BUCKET/KEY or inbox/…",
            got="nothing by that name",
            remedy="'tidemill models' lists the versions",
        )
    return _version_down(context, version)


def _version_down(context: Context, version: Version) -> Node:
    model = version.model
    children = []
    for record in context.ledger.stages.records("package", model):
        bento = Bento.model_validate(record)
        if bento.version == version.version:
            children.append(Node("bento", bento.tag, f"package {bento.bento_id}"))
    for record in context.ledger.stages.records("export", model):
        exported = ExportedModel.model_validate(record)
        if exported.version == version.version:
            children.append(Node("export", exported.export_id, f"{exported.variant}, {exported.onnx_prefix}"))
    for record in context.ledger.stages.records("train", model):
        checkpoint = Checkpoint.model_validate(record)
        if checkpoint.version == version.version:
            detail = f"{checkpoint.n_steps} steps on {checkpoint.base_model}, {checkpoint.adapter_prefix}"
            children.append(Node("adapter", checkpoint.checkpoint_id, detail))
    for dataset in datasets_by_id(context, model, version.dataset_ids):
        children.append(_dataset_down(context, dataset))
    parent = context.ledger.versions.get(model, version.parent) if version.parent else None
    if parent is not None:
        children.append(_version_down(context, parent))
    return Node(
        "model", f"{model}/{version.version}", f"{version.state}, trained because of {version.reason}", tuple(children)
    )


def _dataset_down(context: Context, dataset: Dataset) -> Node:
    shards = tuple(
        Node("shard", f"s3://{ref.bucket}/{ref.key}", f"{ref.size_bytes:,} bytes")
        for ref in context.bucket.list(f"{dataset.prefix}shards/")
    )
    drop = context.ledger.arrivals.drop(dataset.drop_id)
    objects = tuple(
        Node("object", ref.uri, f"etag {ref.etag}, {ref.size_bytes:,} bytes") for ref in (drop.objects if drop else ())
    )
    origin = Node("drop", dataset.drop_id, f"{len(objects)} objects", objects)
    return Node("dataset", dataset.dataset_id, f"{dataset.n_kept} of {dataset.n_read} documents", (*shards, origin))


def _object_up(context: Context, key: str) -> Node:
    found = context.ledger.arrivals.drops_with_object(key)
    if not found:
        raise TidemillError(
            f"lineage of s3://{context.bucket.name}/{key}",
            expected="an object that the ledger has seen",
            got="an unknown key",
            remedy="check the key; 'tidemill runs' shows what has arrived",
        )
    children = []
    for ref, drop_id in found:
        drop = context.ledger.arrivals.drop(drop_id) if drop_id else None
        if drop is None:
            children.append(Node("object version", ref.etag, "not in a drop yet"))
            continue
        made = [d for d in _all_datasets(context, drop.model) if d.drop_id == drop_id]
        children.append(
            Node(
                "object version", ref.etag, f"drop {drop_id}", tuple(_dataset_up(context, dataset) for dataset in made)
            )
        )
    return Node("object", f"s3://{context.bucket.name}/{key}", "", tuple(children))


def _dataset_up(context: Context, dataset: Dataset) -> Node:
    versions = context.ledger.versions.all(dataset.model)
    saw = {version.version for version in versions if dataset.dataset_id in version.dataset_ids}
    for version in versions:  # in order of age, so one pass reaches every descendant
        if version.parent in saw:
            saw.add(version.version)
    nodes = tuple(
        Node("model", f"{version.model}/{version.version}", version.state)
        for version in versions
        if version.version in saw
    )
    return Node("dataset", dataset.dataset_id, dataset.prefix, nodes)


def _all_datasets(context: Context, model: str) -> list[Dataset]:
    return [Dataset.model_validate(record) for record in context.ledger.stages.records("prepare", model)]
