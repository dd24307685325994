"""What must hold whatever was killed: read from the bucket and the ledger, compared with the harness' own record."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from flows.context import Context
from flows.lineage import Node, lineage
from lake.errors import TidemillError
from lake.ledger.tables import objects, stages
from lake.records import Dataset
from lake.stage import Manifest
from tests.chaos.inputs import Upload

SETTLED = ("waiting", "trained", "refused")


@dataclass(frozen=True)
class Violation:
    """`rule`: lost, twice, half-read, lineage or stuck."""

    rule: str
    evidence: str


@dataclass(frozen=True)
class Place:
    """One document or dead letter in a dataset."""

    uri: str
    etag: str
    position: str


@dataclass(frozen=True)
class Row:
    place: Place
    dataset_id: str
    reason: str | None
    text: str | None


def violations(context: Context, model: str, uploads: Sequence[Upload]) -> list[Violation]:
    """Everything that is wrong with a model whose inbox has settled, after a sweep. Nothing may be running on it."""
    found = [*_drops(context, model, uploads), *_manifests(context, model)]
    if any(violation.rule == "half-read" for violation in found):
        return found  # its rows cannot be trusted
    rows = list(_rows(context, model))
    return [*found, *_documents(context, rows, uploads), *_lineage(context, model, uploads)]


def _drops(context: Context, model: str, uploads: Sequence[Upload]) -> Iterator[Violation]:
    """Every version that was listed is in exactly one drop; every drop is settled and has exactly one dataset."""
    states = {state.drop_id: state for state in context.ledger.drops.states(model)}
    with context.ledger.engine.connect() as connection:
        entered = {
            (row.key, row.etag): row for row in connection.execute(select(objects).where(objects.c.model == model))
        }
    for identity in entered.keys() - {(upload.key, upload.etag) for upload in uploads}:
        yield Violation("half-read", f"object version {identity} is in the ledger, and was never put")
    for upload in uploads:
        row = entered.get((upload.key, upload.etag))
        if row is None or row.drop_id is None:
            if not upload.gone:
                yield Violation("lost", f"{upload.key} {upload.etag}: {row.state if row else 'not listed'}, in no drop")
        elif row.drop_id not in states:
            yield Violation("lost", f"{upload.key} {upload.etag} is in drop {row.drop_id}, which there is not")
    made = Counter(dataset.drop_id for dataset in _datasets(context, model))
    for drop_id, state in states.items():
        if state.state not in SETTLED:
            yield Violation("stuck", f"drop {drop_id} is {state.state} after {state.attempts}: {state.message}")
        if made[drop_id] == 0:
            yield Violation("lost", f"drop {drop_id} is {state.state} and has no dataset")
    for drop_id, n_datasets in made.items():
        if n_datasets > 1:
            yield Violation("twice", f"{n_datasets} datasets of drop {drop_id}")


def _manifests(context: Context, model: str) -> Iterator[Violation]:
    """Every committed stage has its manifest, which lists what is there, byte by byte, and there is nothing else."""
    committed = set()
    with context.ledger.engine.connect() as connection:
        rows = connection.execute(select(stages).where(stages.c.model == model)).all()
    for row in rows:
        folder = row.manifest_key.rpartition("/")[0] + "/"
        committed.add(folder)
        try:
            manifest = Manifest.model_validate_json(context.bucket.get(row.manifest_key))
        except (TidemillError, ValueError) as error:
            yield Violation("half-read", f"manifest of {row.stage} {row.stage_id}: {error}")
            continue
        if manifest.stage_id != row.stage_id or manifest.record != row.record:
            yield Violation("half-read", f"{row.manifest_key} is not what {row.stage} {row.stage_id} committed")
        there = {ref.key for ref in context.bucket.list(folder)} - {row.manifest_key}
        for key in there - {output.key for output in manifest.outputs}:
            yield Violation("half-read", f"{key} lies in a committed folder, and no manifest knows it")
        for output in manifest.outputs:
            body = context.bucket.get(output.key) if output.key in there else b""
            if (len(body), hashlib.sha256(body).hexdigest()) != (output.size_bytes, output.sha256):
                yield Violation("half-read", f"{output.key}: {len(body)} bytes, manifest {output.size_bytes}")
    for key in (ref.key for part in ("datasets", "models") for ref in context.bucket.list(f"{part}/{model}/")):
        if not any(key.startswith(folder) for folder in committed):
            yield Violation("half-read", f"{key} is of no committed stage, and the sweep has left it")


def _datasets(context: Context, model: str) -> list[Dataset]:
    return [Dataset.model_validate(record) for record in context.ledger.stages.records("prepare", model)]


def _rows(context: Context, model: str) -> Iterator[Row]:
    """All documents and dead letters of all datasets, as their readers find them."""
    for dataset in _datasets(context, model):
        for part in ("shards", "rejects"):
            for ref in context.bucket.list(f"{dataset.prefix}{part}/"):
                table = context.bucket.get_table(ref.key)
                for row in table.to_pylist():
                    place = Place(row["source_uri"], row["source_etag"], row["position"])
                    yield Row(place, dataset.dataset_id, row.get("reason"), row.get("text"))


def _documents(context: Context, rows: Sequence[Row], uploads: Sequence[Upload]) -> Iterator[Violation]:
    """Every document that was put is in exactly one row, kept or rejected, with the text it had."""
    for place, n_rows in Counter(row.place for row in rows).items():
        if n_rows > 1:
            yield Violation("twice", f"{n_rows} rows of {place}")
    by_version: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        by_version.setdefault((row.place.uri, row.place.etag), {})[row.place.position] = row
    for upload in uploads:
        uri = f"s3://{context.bucket.name}/{upload.key}"
        found = by_version.pop((uri, upload.etag), {})
        yield from _version(upload, found)
    for (uri, etag), found in by_version.items():
        yield Violation("half-read", f"{len(found)} rows of {uri} {etag}, which was never put")


def _version(upload: Upload, found: dict[str, Row]) -> Iterator[Violation]:
    told = f"{upload.key} {upload.etag}"
    if upload.gone and (not found or [row.reason for row in found.values()] == ["source_changed"]):
        return
    letters = [row for row in found.values() if row.reason == "truncated_gzip"]
    read = found.keys() - {row.place.position for row in letters}
    if upload.cut:
        if len(letters) != 1:
            yield Violation("lost", f"{told}: {len(letters)} dead letters of a truncated gzip, expected 1")
        expected = set(list(upload.documents)[: len(read)])
    else:
        expected = set(upload.documents)
    for position in sorted(expected - read):
        yield Violation("lost", f"{told}: no row of {position}; found {sorted(found)}")
    for position in sorted(read - expected):
        yield Violation("half-read", f"{told}: {position} as {found[position].reason}, which was never put")
    for position in read & expected:
        text = found[position].text
        if text is not None and text != upload.documents[position]:
            yield Violation("half-read", f"{told}: {position} has another text")


def _lineage(context: Context, model: str, uploads: Sequence[Upload]) -> Iterator[Violation]:
    """Down from each version to every source object, and up from every object to its dataset and versions."""
    datasets = {dataset.dataset_id: dataset for dataset in _datasets(context, model)}
    for version in context.ledger.versions.all(model):
        if version.state in ("failed", "candidate"):
            continue
        below = {node.name for node in _nodes(lineage(context, f"{model}/{version.version}"))}
        for dataset_id in version.dataset_ids:
            drop = context.ledger.drops.get(datasets[dataset_id].drop_id) if dataset_id in datasets else None
            for uri in {ref.uri for ref in drop.objects} if drop else {f"dataset {dataset_id}"}:
                if uri not in below:
                    yield Violation("lineage", f"{model}/{version.version} does not lead to {uri}")
    with context.ledger.engine.connect() as connection:
        assigned = dict(
            connection.execute(
                select(objects.c.key, objects.c.drop_id).where(objects.c.model == model, objects.c.drop_id.is_not(None))
            ).all()
        )
    by_drop = {dataset.drop_id: dataset.dataset_id for dataset in datasets.values()}
    for key in {upload.key for upload in uploads} & assigned.keys():
        above = {node.name for node in _nodes(lineage(context, key))}
        if by_drop.get(assigned[key]) not in above:
            yield Violation("lineage", f"{key} does not lead to dataset {by_drop.get(assigned[key])}")


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _nodes(child)
