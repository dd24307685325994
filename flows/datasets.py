"""Look up datasets: by id, of a model's history, those that a version has seen. A rewritten one stands for the old."""

from __future__ import annotations

from collections.abc import Sequence

from flows.context import Context
from lake.records import Checkpoint, Dataset, Split
from lake.tombstones import newest_of


def history_of(context: Context, model: str) -> list[Dataset]:
    """Datasets that later drops are deduplicated against: all but those that the checks refused.

    In the order in which the drops were prepared, also where a dataset stands for one that was rewritten since.
    """
    replaced_by = context.ledger.erasures.replaced_by(model)
    kept = {
        newest_of(state.dataset_id, replaced_by)
        for state in context.ledger.drops.states(model)
        if state.state in ("waiting", "training", "trained") and state.dataset_id
    }
    committed = {dataset.dataset_id: dataset for dataset in committed_datasets(context, model)}
    standing = (newest_of(dataset.dataset_id, replaced_by) for dataset in _recorded(context, model, "prepare"))
    return [committed[identity] for identity in dict.fromkeys(standing) if identity in kept]


def datasets_by_id(context: Context, model: str, dataset_ids: Sequence[str]) -> list[Dataset]:
    """These datasets, or what stands for them since part of them was erased, in the order of their making."""
    replaced_by = context.ledger.erasures.replaced_by(model)
    wanted = {newest_of(dataset_id, replaced_by) for dataset_id in dataset_ids}
    return [dataset for dataset in committed_datasets(context, model) if dataset.dataset_id in wanted]


def seen_by(context: Context, model: str, version: str | None) -> list[Dataset]:
    """Every dataset that a version was trained on, directly or through its parents."""
    seen: list[str] = []
    while version is not None:
        found = context.ledger.versions.get(model, version)
        if found is None:
            break
        seen.extend(found.dataset_ids)
        version = found.parent
    return datasets_by_id(context, model, seen)


def with_split(datasets: Sequence[Dataset], split: Split) -> list[Dataset]:
    """Those that have documents in a split: all of one may have been erased."""
    return [dataset for dataset in datasets if dataset.n_documents.get(split, 0)]


def current_datasets(context: Context, model: str) -> list[Dataset]:
    """All datasets of a model whose files are in the bucket, in the order of their making."""
    replacements = context.ledger.erasures.replaced_by(model)
    standing = set(replacements.values())
    prepared = {dataset.dataset_id for dataset in _recorded(context, model, "prepare")}
    return [
        dataset
        for dataset in committed_datasets(context, model)
        if dataset.dataset_id not in replacements and dataset.dataset_id in prepared | standing
    ]


def committed_datasets(context: Context, model: str) -> list[Dataset]:
    """Every dataset that was ever committed, prepared ones first, each kind in the order of its making."""
    return _recorded(context, model, "prepare") + _recorded(context, model, "erase")


def checkpoint_of(context: Context, model: str, version: str | None) -> Checkpoint | None:
    """The committed checkpoint of a version; None for no version."""
    records = (Checkpoint.model_validate(record) for record in context.ledger.stages.records("train", model))
    return next((record for record in records if record.version == version), None)


def unread_objects(context: Context, dataset: Dataset) -> dict[str, str]:
    """Reason by key, of the objects of a drop that could not be read at all, though not for what is in them."""
    reasons = ("source_changed", "access_denied")
    if not any(dataset.rejected.get(reason) for reason in reasons):
        return {}
    found: dict[str, str] = {}
    for ref in context.bucket.list(f"{dataset.prefix}rejects/"):
        for row in context.bucket.get_table(ref.key, ["source_uri", "reason"]).to_pylist():
            if row["reason"] in reasons:
                found[row["source_uri"].removeprefix(f"s3://{context.bucket.name}/")] = row["reason"]
    return found


def _recorded(context: Context, model: str, stage: str) -> list[Dataset]:
    return [Dataset.model_validate(record) for record in context.ledger.stages.records(stage, model)]
