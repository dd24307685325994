"""What a drop is deduplicated against: all standing datasets of its model, by indexes that are compacted as they grow.

A drop's own index is small. Of every FAN_IN datasets in a row one index is made, of every FAN_IN of those another one,
and so on, as in a log-structured merge tree (O'Neil et al. 1996): n datasets are read as (FAN_IN - 1) · log n indexes
at most, each document is copied log n times, and a drop's record names no more than that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from beam_jobs.past import Past
from flows.context import Context
from lake.layout import index_prefix
from lake.records import Dataset, SignatureIndex
from lake.stage import run_stage
from lake.tombstones import newest_of

FAN_IN = 32


def indexes_of(context: Context, model: str, datasets: Sequence[Dataset]) -> list[Past]:
    """The indexes that hold these datasets, in their order: compacted ones as far as there are enough of them."""
    return _compacted(context, model, pasts_of(context, datasets))


def pasts_of(context: Context, datasets: Sequence[Dataset]) -> list[Past]:
    return [_past(context, dataset) for dataset in datasets]


def reserves_of(context: Context, model: str, datasets: Sequence[Dataset]) -> list[Past]:
    """Datasets whose left-out documents have not taken part in a later drop yet."""
    replaced_by = context.ledger.erasures.replaced_by(model)
    reused = {newest_of(each, replaced_by) for dataset in datasets for each in dataset.reused_ids}
    left = [dataset for dataset in datasets if dataset.n_reserved and dataset.dataset_id not in reused]
    return [_past(context, dataset) for dataset in left]


def delete_indexes(context: Context, model: str, dataset_ids: Collection[str]) -> None:
    """Delete the compacted indexes that hold any of these datasets: they have been rewritten, and so will these be."""
    holds = set(dataset_ids)
    for record in context.ledger.stages.records("compact", model):  # those of indexes come after the indexes
        index = SignatureIndex.model_validate(record)
        if not holds.isdisjoint(index.of):
            holds.add(index.index_id)
            context.bucket.delete_folder(index.prefix)


def _compacted(context: Context, model: str, history: list[Past]) -> list[Past]:
    n_whole = len(history) // FAN_IN * FAN_IN
    if not n_whole:
        return history
    groups = [history[start : start + FAN_IN] for start in range(0, n_whole, FAN_IN)]
    merged = [_index_of(context, model, group) for group in groups]
    return [*_compacted(context, model, merged), *history[n_whole:]]


def _index_of(context: Context, model: str, history: Sequence[Past]) -> Past:
    def build(identity: str, prefix: str) -> SignatureIndex:
        from beam_jobs.compact import compact

        n_documents = compact(context.bucket, history, prefix)
        of = tuple(past.identity for past in history)
        return SignatureIndex(index_id=identity, model=model, prefix=prefix, of=of, n_documents=n_documents)

    index = run_stage(
        context.ledger,
        context.bucket,
        stage="compact",
        model=model,
        inputs=[past.identity for past in history],
        parameters={},
        package="beam_jobs",
        folder_of=lambda identity: index_prefix(model, identity),
        record_type=SignatureIndex,
        build=build,
    )
    return Past(index.index_id, context.address, index.prefix)


def _past(context: Context, dataset: Dataset) -> Past:
    return Past(dataset.dataset_id, context.address, dataset.prefix)
