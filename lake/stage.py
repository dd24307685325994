"""Stages are functions from immutable inputs to immutable outputs, committed by a manifest that is written last."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from lake.bucket import Bucket
from lake.errors import StageTakenOver
from lake.layout import manifest_key
from lake.ledger import Ledger
from lake.ledger.stages import StageAttempt
from lake.records import Record
from lake.store import Store

R = TypeVar("R", bound=Record)

# By then no process that was paused can wake up and write again.
FORGOTTEN_AFTER = timedelta(days=7)

UNFINISHED = "unfinished"  # beside what a preparation outside of an installation has begun to write
ROOT = Path(__file__).parent.parent


class OutputFile(Record):
    key: str
    size_bytes: int
    sha256: str


class Manifest(Record):
    """What a stage left. `record` is the hand-over to the next stage."""

    stage_id: str
    stage: str
    model: str
    inputs: tuple[str, ...]
    parameters: dict[str, Any]
    code_version: str
    outputs: tuple[OutputFile, ...]
    record: dict[str, Any]
    committed_at: datetime
    duration_s: float


@cache
def code_version(package: str) -> str:
    """Hash of a package's source files, or of several joined by `+`: 12 hex digits that change when their code does."""
    digest = hashlib.sha256()
    for path in sorted(path for each in package.split("+") for path in (ROOT / each).rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def stage_id(stage: str, inputs: Sequence[str], parameters: Mapping[str, Any], code: str) -> str:
    """16 hex digits from the inputs' ids, the parameters and the code version."""
    told = json.dumps([stage, list(inputs), dict(parameters), code], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def run_stage(
    ledger: Ledger,
    bucket: Bucket,
    *,
    stage: str,
    model: str,
    inputs: Sequence[str],
    parameters: Mapping[str, Any],
    package: str,
    folder_of: Callable[[str], str],
    record_type: type[R],
    build: Callable[[str, str], R],
    subject: str | None = None,
) -> R:
    """Return the stage's record: the committed one if there is one, else that of `build(stage_id, prefix)`, committed.

    `build` writes everything below `prefix`, which is `folder_of(stage_id)` or, after an attempt that did not end, a
    folder beside it. The manifest with sizes and sha256 follows last, then the ledger's row. Of two processes that build
    the same stage, or another one of the same `subject`, the one that began last can commit; the files of the other are
    swept.

    Raises StageTakenOver when another process took this stage over meanwhile and has not committed it yet.
    """
    code = code_version(package)
    identity = stage_id(stage, inputs, parameters, code)
    committed = ledger.stages.find(identity)
    if committed is not None:
        return record_type.model_validate(committed)
    finished = _finished(ledger, bucket, identity)
    if finished is None:
        attempt = ledger.stages.begin(identity, model, folder_of(identity), subject)
        if attempt is None:  # committed this very moment
            return record_type.model_validate(ledger.stages.find(identity))
        started = time.monotonic()
        bucket.delete_folder(attempt.prefix)  # what an installation that lost its ledger has left
        record = build(identity, attempt.prefix)
        manifest = write_manifest(
            bucket,
            attempt.prefix,
            stage_id=identity,
            stage=stage,
            model=model,
            inputs=inputs,
            parameters=parameters,
            code=code,
            record=record,
            duration_s=time.monotonic() - started,
        )
    else:
        attempt, manifest = finished
    ledger.stages.commit(
        attempt,
        stage=stage,
        manifest_key=manifest_key(attempt.prefix),
        record=manifest.record,
        duration_s=manifest.duration_s,
    )
    counts = ledger.stages.find(identity)
    if counts is None:
        raise StageTakenOver(
            f"stage {stage} {identity} of {model}, attempt {attempt.number}",
            expected="to be its only writer",
            got="another process took it over, as this one seemed dead",
            remedy="nothing to do: that process goes on with it",
        )
    return record_type.model_validate(counts)


def write_manifest(
    store: Store,
    prefix: str,
    *,
    stage_id: str,
    stage: str,
    model: str,
    inputs: Sequence[str],
    parameters: Mapping[str, Any],
    code: str,
    record: Record,
    duration_s: float,
) -> Manifest:
    """Commit what lies below `prefix`: its manifest, with every file's size and sha256, is the last thing written."""
    manifest = Manifest(
        stage_id=stage_id,
        stage=stage,
        model=model,
        inputs=tuple(inputs),
        parameters=dict(parameters),
        code_version=code,
        outputs=_outputs(store, prefix),
        record=record.model_dump(mode="json"),
        committed_at=datetime.now(UTC),
        duration_s=round(duration_s, 3),
    )
    store.put(manifest_key(prefix), manifest.model_dump_json(indent=1).encode(), "application/json")
    return manifest


def read_manifest(store: Store, prefix: str) -> Manifest | None:
    """The manifest below a prefix; None when there is none, or none that can be read."""
    if not store.exists(manifest_key(prefix)):
        return None
    try:
        return Manifest.model_validate_json(store.get(manifest_key(prefix)))
    except ValueError:
        return None


def sweep(ledger: Ledger, bucket: Bucket, abandoned_after: timedelta = timedelta(days=1)) -> int:
    """Delete what attempts have left that will never be committed. Returns the number of attempts swept.

    Those are the ones that another took over, and those begun `abandoned_after` ago whose stage nobody has committed,
    while nothing of their model is under way. An attempt is marked first, so that it cannot be committed while its files go. A process that comes back to life
    may write again after that: attempts swept before are looked at again.
    """
    n_swept, now = 0, datetime.now(UTC)
    busy = {drop.model for drop in ledger.drops.states(only=("preparing", "training"))}
    for state in ("superseded", "open", "swept"):
        for attempt in ledger.stages.attempts(state=state):
            abandoned = attempt.started_at < now - abandoned_after and attempt.model not in busy
            if state == "open" and not abandoned:
                continue
            if state != "swept" and ledger.stages.give_up(attempt, state):
                n_swept += 1
            bucket.delete_folder(attempt.prefix)
            if state == "swept" and attempt.started_at < now - FORGOTTEN_AFTER:
                ledger.stages.forget(attempt)
    return n_swept


def _finished(ledger: Ledger, bucket: Bucket, identity: str) -> tuple[StageAttempt, Manifest] | None:
    """An attempt that has written its manifest and died before it told the ledger."""
    for attempt in ledger.stages.attempts(identity, state="open"):
        manifest = read_manifest(bucket, attempt.prefix)
        if manifest is not None and manifest.stage_id == identity:
            return attempt, manifest
    return None


def _outputs(store: Store, prefix: str) -> tuple[OutputFile, ...]:
    keys = [key for key in store.keys(prefix) if key not in (manifest_key(prefix), f"{prefix}{UNFINISHED}")]
    return tuple(
        OutputFile(key=key, size_bytes=size_bytes, sha256=sha256)
        for key in keys
        for size_bytes, sha256 in (store.digest(key),)
    )
