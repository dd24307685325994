"""What is still live of what was erased, the deletion of versions that have seen it, and what to train anew."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

from flows.context import Context
from flows.erase import waits_for
from flows.precisions import EXPORT_STAGE, PACKAGE_STAGE
from lake.layout import version_folder
from lake.ledger.erasures import Erasure
from lake.ledger.taints import Taint
from lake.ledger.versions import Version
from lake.records import Record
from lake.tombstones import newest_of


class TaintedVersion(Record):
    """A version that has seen what was erased. `live`: it answers requests, or may, as a rollout offers it.

    `artifacts` are its folders and files in the bucket: adapter, export, bento; none when it is purged.
    """

    version: str
    state: str
    live: bool
    purged: bool
    artifacts: tuple[str, ...]


class ErasureStatus(Record):
    """One erasure as it is now. `gone`: no artifact of any version that saw the documents is left."""

    erasure_id: str
    model: str
    state: str
    subjects: tuple[str, ...]
    n_subjects: int
    requested_by: str
    requested_at: datetime
    done_at: datetime | None
    rebuild: str
    found: dict[str, object]
    replaced: dict[str, str]
    versions: tuple[TaintedVersion, ...]
    gone: bool
    waits_for: tuple[str, ...]


def status(context: Context, model: str | None = None) -> list[ErasureStatus]:
    """Every erasure, oldest first, with what is still live of what it erased."""
    return [_status(context, erasure) for erasure in context.ledger.erasures.all(model)]


def purge_tainted(context: Context) -> list[str]:
    """Delete adapter, export and bento of versions that saw what was erased, once they neither serve nor roll out.

    From the bucket, and from this machine's BentoML store and scratch. Returns `model/version` of those deleted now.
    Safe to repeat; policy `never` leaves versions alone. Raises StorageError when the store fails.
    """
    taints = [taint for taint in context.ledger.taints.all() if taint.blocks]
    gone: list[str] = []
    for model, version in dict.fromkeys((taint.model, taint.version) for taint in taints if not taint.purged_at):
        if context.ledger.taints.retire(model, version):
            context.bucket.delete_folder(version_folder(model, version))
            context.ledger.taints.purged(model, version, datetime.now(UTC))
            gone.append(f"{model}/{version}")
    for model, version in dict.fromkeys((taint.model, taint.version) for taint in taints):
        found = context.ledger.versions.get(model, version)
        if found is not None and found.state == "erased":
            _delete_here(context, found)  # another machine may have entered it as purged
    return gone


def rebuilds_due(context: Context) -> list[str]:
    """Models whose next training should begin now: `retrain` with reason `erasure` does it.

    Their data waits, nothing of them is under way, and no version has been begun since the erasure: either the policy
    is to rebuild now, or the erasure has cut the newest version's training short.
    """
    by_model: dict[str, list[Taint]] = {}
    for taint in context.ledger.taints.all():
        if taint.blocks:
            by_model.setdefault(taint.model, []).append(taint)
    return [model for model, taints in by_model.items() if _is_due(context, model, taints)]


def _is_due(context: Context, model: str, taints: list[Taint]) -> bool:
    states = context.ledger.drops.states(model)
    replacements = context.ledger.erasures.replacements(model)
    waiting = {state.dataset_id for state in states if state.state == "waiting"}
    waiting -= {found.replaced_by for found in replacements if found.n_left == 0}
    if not waiting or any(state.state in ("preparing", "training") for state in states):
        return False
    newest = context.ledger.versions.all(model)[-1]
    of_newest = [taint for taint in taints if taint.version == newest.version]
    if not of_newest or context.ledger.erasures.opened(model):
        return False
    replaced_by = {found.dataset_id: found.replaced_by for found in replacements}
    cut_short = not waiting.isdisjoint(newest_of(dataset_id, replaced_by) for dataset_id in newest.dataset_ids)
    return cut_short or any(taint.rebuild == "now" for taint in of_newest)


def _status(context: Context, erasure: Erasure) -> ErasureStatus:
    model, ledger = erasure.model, context.ledger
    known = {version.version: version for version in ledger.versions.all(model)}
    taints = [taint for taint in ledger.taints.all(model) if taint.erasure_id == erasure.erasure_id]
    offered = {rollout.challenger for rollout in ledger.rollouts.running() if rollout.model == model}
    return ErasureStatus(
        **erasure.model_dump(exclude={"owner", "held_until"}),
        replaced={
            found.dataset_id: found.replaced_by
            for found in ledger.erasures.replacements(model)
            if erasure.erasure_id in found.erasure_ids
        },
        versions=tuple(
            TaintedVersion(
                version=taint.version,
                state=known[taint.version].state,
                live=known[taint.version].state == "champion" or taint.version in offered,
                purged=taint.purged_at is not None,
                artifacts=() if taint.purged_at else _artifacts(context, model, taint.version),
            )
            for taint in taints
        ),
        gone=erasure.state == "done" and all(taint.purged_at for taint in taints),
        waits_for=tuple(waits_for(context, model)) if erasure.state == "open" else (),
    )


def _artifacts(context: Context, model: str, version: str) -> tuple[str, ...]:
    named = (
        ("train", "adapter_prefix"),
        ("export", "onnx_prefix"),
        ("package", "archive_key"),
        (EXPORT_STAGE, "onnx_prefix"),
        (PACKAGE_STAGE, "archive_key"),
    )
    return tuple(
        str(record[name])
        for stage, name in named
        for record in context.ledger.stages.records(stage, model)
        if record["version"] == version
    )


def _delete_here(context: Context, version: Version) -> None:
    """Delete what this machine has of a version: BentoML's model and bento, the scratch of its stages."""
    for kind in ("models", "bentos"):
        folder = context.bentoml_home / kind / version.model
        for path in (folder / version.version, *folder.glob(f"{version.version}-*")):  # other precisions
            shutil.rmtree(path, ignore_errors=True)
    prefix = version_folder(version.model, version.version)
    for attempt in context.ledger.stages.attempts():
        if attempt.prefix.startswith(prefix):
            shutil.rmtree(context.settings.home / "work" / attempt.stage_id, ignore_errors=True)
