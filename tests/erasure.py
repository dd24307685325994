"""Drops, datasets and versions of a model `docs` for tests of erasure: real files in the bucket, without Beam."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from beam_jobs.dedup import Duplicate
from beam_jobs.part import Part, place_id, read_part, total
from beam_jobs.verify import Identity
from beam_jobs.write import LeftOut, write_source
from flows.context import Context
from lake.bucket import Bucket
from lake.layout import dataset_prefix, inbox_prefix
from lake.recipe import PrepareRules
from lake.records import SPLITS, Bento, Checkpoint, Dataset, Drop, ExportedModel
from lake.stage import run_stage
from tests.stages import commit_record

MODEL = "docs"
RULES = PrepareRules()
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def put_recipe(context: Context, rebuild: str = "next") -> None:
    context.bucket.put(f"recipes/{MODEL}.yaml", f"name: {MODEL}\nerasure: {{rebuild: {rebuild}}}\n".encode())


def lines(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def arrive(context: Context, files: Mapping[str, bytes]) -> Drop:
    """Files that arrive together, as a closed drop."""
    for name, body in files.items():
        context.bucket.put(f"{inbox_prefix(MODEL)}{name}", body)
    number = len(context.ledger.drops.states(MODEL))
    now = BEGIN + timedelta(minutes=number)
    context.ledger.arrivals.reconcile(MODEL, context.bucket.pages(inbox_prefix(MODEL)), now)
    drop = context.ledger.arrivals.close_drop(MODEL, 0.0, now)
    assert drop is not None
    return drop


def prepare(context: Context, drop: Drop, copy_of: Mapping[int, str] | None = None) -> Dataset:
    """The dataset of a drop. `copy_of` names the kept documents that rows are duplicates of."""

    def build(identity: str, prefix: str) -> Dataset:
        return _written(context.bucket, drop, identity, prefix, copy_of or {})

    return run_stage(
        context.ledger,
        context.bucket,
        stage="prepare",
        model=MODEL,
        inputs=[drop.drop_id],
        parameters={},
        package="beam_jobs",
        folder_of=lambda identity: dataset_prefix(MODEL, identity),
        record_type=Dataset,
        build=build,
    )


def dropped(
    context: Context, files: Mapping[str, bytes], state: str = "waiting", copy_of: Mapping[int, str] | None = None
) -> Dataset:
    """A drop with its dataset, brought to a state."""
    drop = arrive(context, files)
    dataset = prepare(context, drop, copy_of)
    assert context.ledger.drops.move(drop.drop_id, "closed", state, datetime.now(UTC), dataset_id=dataset.dataset_id)
    return dataset


def version(context: Context, datasets: Sequence[Dataset], parent: str | None = None, state: str = "champion") -> str:
    """A version with files for all that is made of one."""
    made = context.ledger.versions.allocate(
        model=MODEL,
        training_key=f"{parent}-{[dataset.dataset_id for dataset in datasets]}",
        reason="drop",
        dataset_ids=tuple(dataset.dataset_id for dataset in datasets),
        parent=parent,
    )
    name = made.version
    folder = f"models/{MODEL}/{name}/"
    for part in ("adapter", "onnx", "bento"):
        context.bucket.put(f"{folder}{part}/file", b"weights")
    for record in _records(name, folder, made.dataset_ids, parent):
        stage = {"Checkpoint": "train", "ExportedModel": "export", "Bento": "package"}[type(record).__name__]
        commit_record(context.ledger, stage, MODEL, f"{stage}-{name}", record)
    if state == "champion":
        context.ledger.versions.crown(MODEL, name)
    else:
        context.ledger.versions.move(MODEL, name, state, expected=("candidate", "failed"))
    return name


def ids_of(context: Context, dataset: Dataset, text: str) -> list[str]:
    """Ids of kept documents that hold a text."""
    tables = [context.bucket.get_table(ref.key) for ref in context.bucket.list(f"{dataset.prefix}shards/")]
    return [row["id"] for table in tables for row in table.to_pylist() if text in row["text"]]


def texts(context: Context, dataset: Dataset, split: str = "") -> list[str]:
    """All texts of a dataset, or of one split."""
    refs = context.bucket.list(f"{dataset.prefix}shards/{split}")
    return [text for ref in refs for text in context.bucket.get_table(ref.key, ["text"])["text"].to_pylist()]


def place(context: Context, name: str, position: str) -> str:
    """Id of the document at a place of a file."""
    ref = context.bucket.find(f"{inbox_prefix(MODEL)}{name}")
    assert ref is not None
    return place_id(ref, position)


def traces(context: Context, phrase: str) -> list[str]:
    """Keys of everything outside the inbox that still holds the phrase. Parquet is compressed: its cells are read."""
    found = []
    for ref in context.bucket.list(""):
        if ref.key.startswith("inbox/"):
            continue
        body = context.bucket.get(ref.key)
        if ref.key.endswith(".parquet"):
            table = context.bucket.get_table(ref.key)
            texts = [
                name for name, kind in zip(table.schema.names, table.schema.types, strict=True) if kind == pa.string()
            ]
            body = "\n".join(str(value) for name in texts for value in table[name].to_pylist()).encode()
        if phrase.encode() in body:
            found.append(ref.key)
    return found


def _written(bucket: Bucket, drop: Drop, identity: str, prefix: str, copy_of: Mapping[int, str]) -> Dataset:
    table = pa.concat_tables(read_part(lambda _: bucket, Part(0, drop.objects), RULES))
    copies = {row: Duplicate("exact_duplicate", 0, Identity(kept, kept), 1.0) for row, kept in copy_of.items()}
    left_out = LeftOut(copies, np.zeros(0, np.int64), np.zeros(0, np.int64))
    counts = write_source(bucket, prefix, "000000-00000", table, left_out, RULES)
    rejected, documents = total([counts["rejected"]]), counts.get("documents", {})
    return Dataset(
        dataset_id=identity,
        model=MODEL,
        drop_id=drop.drop_id,
        prefix=prefix,
        history_ids=(),
        n_objects=len(drop.objects),
        n_read=len(table),
        n_kept=sum(documents.values()),
        rejected=rejected,
        redacted=counts["redacted"],
        n_documents={split: documents.get(split, 0) for split in SPLITS},
        n_characters=counts.get("characters", {}),
    )


def _records(
    name: str, folder: str, dataset_ids: tuple[str, ...], parent: str | None
) -> tuple[Checkpoint, ExportedModel, Bento]:
    checkpoint = Checkpoint(
        checkpoint_id=f"train-{name}",
        model=MODEL,
        version=name,
        dataset_ids=dataset_ids,
        parent_version=parent,
        base_model="smollm2-135m-instruct",
        adapter_prefix=f"{folder}adapter/",
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
    exported = ExportedModel(
        export_id=f"export-{name}",
        model=MODEL,
        version=name,
        variant="int8",
        onnx_prefix=f"{folder}onnx/",
        size_bytes=1,
        parity_max_logit_diff=0.0,
        parity_top1=1.0,
        perplexity_fp32=20.0,
        perplexity_variant=20.0,
        quantization_loss=0.0,
    )
    bento = Bento(
        bento_id=f"package-{name}",
        tag=f"{MODEL}:{name}",
        model_tag=f"{MODEL}:{name}",
        model=MODEL,
        version=name,
        export_id=exported.export_id,
        labels={},
        archive_key=f"{folder}bento/file",
    )
    return checkpoint, exported, bento
