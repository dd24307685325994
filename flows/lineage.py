"""From a live model down to the source objects, and from an object up to every model that saw it."""

from __future__ import annotations

from dataclasses import dataclass, field

from flows.context import Context
from flows.datasets import checkpoint_of, current_datasets, datasets_by_id, seen_by
from lake.errors import TidemillError
from lake.ledger.arrivals import ObjectState
from lake.ledger.experiments import version_of
from lake.ledger.versions import Version
from lake.records import Bento, Checkpoint, Dataset, ExportedModel
from lake.tombstones import chain_to, who_saw

_OBJECTS_SHOWN = 100_000


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
    variants = {state.challenger: version_of(state) for state in context.ledger.experiments.all(model)}
    name = variants.get(name, name)  # an experiment's arm is of a version
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
    detail = f"{_state(context, version)}, trained because of {version.reason}"
    trained = checkpoint_of(context, model, version.version)
    if parent is not None and trained is not None and trained.parent_version is None:
        # It has nothing of the champion that it was compared with but what is left of that one's data.
        detail += f", from the base model and against {parent.version}"
        children += [_dataset_down(context, dataset, "replayed") for dataset in seen_by(context, model, parent.version)]
    elif parent is not None:
        children.append(_version_down(context, parent))
    return Node("model", f"{model}/{version.version}", detail, tuple(children))


def _state(context: Context, version: Version) -> str:
    erasures = [
        taint.erasure_id for taint in context.ledger.taints.all(version.model) if taint.version == version.version
    ]
    return f"{version.state}, has seen what erasure {', '.join(erasures)} erased" if erasures else version.state


def _dataset_down(context: Context, dataset: Dataset, how: str = "") -> Node:
    shards = tuple(
        Node("shard", f"s3://{ref.bucket}/{ref.key}", f"{ref.size_bytes:,} bytes")
        for ref in context.bucket.list(f"{dataset.prefix}shards/")
    )
    objects = tuple(
        Node("object", f"s3://{ref.bucket}/{ref.key}", f"{_erased(ref)}etag {ref.etag}, {ref.size_bytes:,} bytes")
        for ref in sorted(
            context.ledger.arrivals.objects(drop_id=dataset.drop_id, limit=_OBJECTS_SHOWN),
            key=lambda ref: (ref.key, ref.etag),
        )
    )
    origin = Node("drop", dataset.drop_id, f"{len(objects)} objects", objects)
    detail = f"{dataset.n_kept} of {dataset.n_read} documents{_replaces(context, dataset)}"
    return Node(f"{how} dataset".strip(), dataset.dataset_id, detail, (*shards, origin))


def _replaces(context: Context, dataset: Dataset) -> str:
    chain = chain_to(dataset.dataset_id, context.ledger.erasures.replaced_by(dataset.model))
    earlier = ", ".join(sorted(chain - {dataset.dataset_id}))
    return f"; stands for {earlier}, of which part was erased" if earlier else ""


def _erased(ref: ObjectState) -> str:
    return f"erased ({ref.message}), " if ref.state == "erased" else ""


def _object_up(context: Context, key: str) -> Node:
    found = context.ledger.arrivals.objects(key=key)
    if not found:
        raise TidemillError(
            f"lineage of s3://{context.bucket.name}/{key}",
            expected="an object that the ledger has seen",
            got="an unknown key",
            remedy="check the key; 'tidemill runs' shows what has arrived",
        )
    children = []
    for ref in sorted(found, key=lambda ref: ref.first_seen_at):
        if ref.drop_id is None:
            children.append(Node("object version", ref.etag, f"{_erased(ref)}not in a drop yet"))
            continue
        made = [d for d in current_datasets(context, ref.model) if d.drop_id == ref.drop_id]
        datasets = tuple(_dataset_up(context, dataset, erased=ref.state == "erased") for dataset in made)
        children.append(Node("object version", ref.etag, f"{_erased(ref)}drop {ref.drop_id}", datasets))
    return Node("object", f"s3://{context.bucket.name}/{key}", "", tuple(children))


def _dataset_up(context: Context, dataset: Dataset, *, erased: bool) -> Node:
    """With the versions that saw the dataset; of an erased object, those that saw it before that."""
    versions = context.ledger.versions.all(dataset.model)
    saw = who_saw(versions, chain_to(dataset.dataset_id, context.ledger.erasures.replaced_by(dataset.model)))
    tainted = {taint.version for taint in context.ledger.taints.all(dataset.model)}
    nodes = tuple(
        Node("model", f"{version.model}/{version.version}", _state(context, version))
        for version in versions
        if version.version in (saw & tainted if erased else saw)
    )
    return Node("dataset", dataset.dataset_id, f"{dataset.prefix}{_replaces(context, dataset)}", nodes)
