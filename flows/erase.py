"""Erase documents: bury them, write what held them again without them, and go on after any death.

From the moment that the ledger holds the tombstones nothing of them is read again. The rest follows from the ledger
alone, so whoever comes next finishes it: `resume_erasures`.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from beam_jobs.erase import find, rewrite
from flows.context import Context
from flows.datasets import committed_datasets, current_datasets
from flows.erase_plan import Plan
from flows.history import delete_indexes
from lake.errors import StageTakenOver, StorageError
from lake.layout import DATASETS, dataset_prefix
from lake.ledger.erasures import Erasure
from lake.process_owner import is_gone, process_owner
from lake.records import Dataset
from lake.stage import run_stage
from lake.tombstones import digest


def erase(context: Context, plans: Sequence[Plan]) -> list[Erasure]:
    """Carry the plans out. Returns the erasures as they are then: one that has to wait for a drop is still open.

    What an earlier erasure covers already is not entered again; that one is gone on with and returned.
    """
    touched: set[str] = set()
    for planned in plans:
        earlier = _covering(context, planned)
        if earlier is None:
            earlier = context.ledger.erasures.open(
                model=planned.model,
                subjects=planned.subjects,
                keys=planned.keys,
                documents=planned.documents | planned.rejects,
                texts=planned.texts,
                rebuild=planned.rebuild,
                requested_by=f"{getpass.getuser()}@{socket.gethostname()}",
                owner=process_owner(),
                found=planned.found(),
                now=datetime.now(UTC),
            )
        touched.add(earlier.erasure_id)
    resume_erasures(context, {planned.model for planned in plans})
    return [found for found in context.ledger.erasures.all() if found.erasure_id in touched]


def resume_erasures(context: Context, models: Collection[str] | None = None) -> list[str]:
    """Finish what is open, of these models or of all. Returns the ids of the erasures that are done now.

    Cheap when nothing is open. One that waits for a drop which is being prepared stays open, as does one that another
    process works on. Safe to repeat and to run in several processes at once. Raises StorageError when the store fails.
    """
    done: list[str] = []
    for model in sorted({found.model for found in context.ledger.erasures.opened()}):
        if models is None or model in models:
            while finished := _finish(context, model):
                done += finished
    return done


def waits_for(context: Context, model: str) -> list[str]:
    """Drops that are being prepared: claimed before an erasure was opened, they may hold what it erases."""
    return [state.drop_id for state in context.ledger.drops.states(model) if state.state == "preparing"]


def _finish(context: Context, model: str) -> list[str]:
    """Rewrite every dataset that holds something buried, delete what they were, close. Returns what is done."""
    opened = _held(context, model)
    # While one is open, no drop can be claimed: whatever is being prepared was claimed before.
    if not opened or waits_for(context, model):
        return []
    again = True
    while again:  # until nothing is found: another process may have put its own replacement first
        again = False
        for dataset in current_datasets(context, model):
            try:
                again |= _is_rewritten(context, dataset)
            except StageTakenOver:
                return []  # that process goes on with it
            if not _held(context, model):
                return []
    _delete_old(context, model, min(found.requested_at for found in opened))
    ids = [found.erasure_id for found in opened]
    context.ledger.erasures.close(model, ids, datetime.now(UTC))
    return ids


def _held(context: Context, model: str) -> list[Erasure]:
    return context.ledger.erasures.hold(model, process_owner(), datetime.now(UTC), is_gone)


def _is_rewritten(context: Context, dataset: Dataset) -> bool:
    """Whether the dataset held something buried, and a later one stands for it now."""
    erasures, bucket = context.ledger.erasures, context.bucket
    buried = erasures.tombstones(dataset.model)
    try:
        found = find(
            bucket,
            dataset,
            ids=buried.documents,
            texts=buried.texts,
            uris=erasures.erased_uris(dataset.drop_id),
        )
        if not found.ids:
            return False
        rewritten = run_stage(
            context.ledger,
            bucket,
            stage="erase",
            model=dataset.model,
            inputs=[dataset.dataset_id, digest(found.ids)],
            parameters={},
            package="beam_jobs",
            folder_of=lambda identity: dataset_prefix(dataset.model, identity),
            record_type=Dataset,
            build=lambda identity, prefix: rewrite(bucket, dataset, identity, prefix, found.ids),
        )
    except StorageError:
        if dataset.dataset_id in erasures.replaced_by(dataset.model):
            return True  # another process was faster, and has deleted it
        raise
    if not erasures.replace(dataset, rewritten, found.ids, datetime.now(UTC)):
        bucket.delete_folder(rewritten.prefix)
    return True


def _delete_old(context: Context, model: str, since: datetime) -> None:
    """Delete the files of replaced datasets, and those of attempts that ended before the erasure without a dataset."""
    ledger, bucket = context.ledger, context.bucket
    replaced = {found.dataset_id for found in ledger.erasures.replacements(model) if found.replaced_at >= since}
    for dataset in committed_datasets(context, model):
        if dataset.dataset_id in replaced:
            bucket.delete_folder(dataset.prefix)
    delete_indexes(context, model, replaced)
    read = {dataset.prefix for dataset in current_datasets(context, model)}
    gone_before = ledger.erasures.replaced_by(model).keys() - replaced
    for attempt in ledger.stages.attempts():
        ours = attempt.model == model and attempt.prefix.startswith(DATASETS) and attempt.prefix not in read
        over = attempt.state == "superseded" or (attempt.started_at < since and attempt.stage_id not in gone_before)
        if ours and over:
            if attempt.state == "open":
                ledger.stages.give_up(attempt, "open")  # first, so that it cannot be committed while its files go
            bucket.delete_folder(attempt.prefix)


def _covering(context: Context, planned: Plan) -> Erasure | None:
    """The newest erasure of all this, if there is nothing new to bury."""
    erasures, documents = context.ledger.erasures, planned.documents | planned.rejects
    new = documents - erasures.tombstones(planned.model).documents
    if new or any(erasures.objects_left(planned.model, planned.keys).values()):
        return None
    named = set(planned.subjects)
    buried_by = erasures.covering(planned.model, documents | named)
    earlier = [e for e in erasures.all(planned.model) if e.erasure_id in buried_by or not named.isdisjoint(e.subjects)]
    return earlier[-1] if earlier else None
