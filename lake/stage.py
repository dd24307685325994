"""Stages are functions from immutable inputs to immutable outputs, committed by a manifest that is written last."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from lake.bucket import Bucket
from lake.errors import StorageError
from lake.layout import manifest_key
from lake.ledger import Ledger
from lake.records import Record

R = TypeVar("R", bound=Record)

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
    """Hash of a package's source files: 12 hex digits that change when its code does."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / package).rglob("*.py")):
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
    prefix_of: Callable[[str], str],
    record_type: type[R],
    build: Callable[[str], R],
) -> R:
    """Return the stage's record: the committed one if there is one, else `build(stage_id)`'s, committed.

    `build` writes everything below `prefix_of(stage_id)`, which is swept of what an attempt that died has left; the
    manifest with sizes and sha256 follows last, then the ledger's row. Of two processes that build the same stage, the first row counts and both return its record.
    """
    code = code_version(package)
    identity = stage_id(stage, inputs, parameters, code)
    committed = ledger.stages.find(identity)
    if committed is not None:
        return record_type.model_validate(committed)
    prefix = prefix_of(identity)
    manifest = _read_manifest(bucket, prefix, identity)
    if manifest is None:
        started = time.monotonic()
        bucket.delete_folder(prefix)
        record = build(identity)
        manifest = Manifest(
            stage_id=identity,
            stage=stage,
            model=model,
            inputs=tuple(inputs),
            parameters=dict(parameters),
            code_version=code,
            outputs=_outputs(bucket, prefix),
            record=record.model_dump(mode="json"),
            committed_at=datetime.now(UTC),
            duration_s=round(time.monotonic() - started, 3),
        )
        bucket.put(manifest_key(prefix), manifest.model_dump_json(indent=1).encode(), "application/json")
    ledger.stages.commit(
        stage_id=identity,
        stage=stage,
        model=model,
        manifest_key=manifest_key(prefix),
        record=manifest.record,
        duration_s=manifest.duration_s,
    )
    return record_type.model_validate(ledger.stages.find(identity))


def _outputs(bucket: Bucket, prefix: str) -> tuple[OutputFile, ...]:
    keys = [ref.key for ref in bucket.list(prefix) if ref.key != manifest_key(prefix)]
    return tuple(
        OutputFile(key=key, size_bytes=size_bytes, sha256=sha256)
        for key in keys
        for size_bytes, sha256 in (bucket.digest(key),)
    )


def _read_manifest(bucket: Bucket, prefix: str, identity: str) -> Manifest | None:
    """The manifest of this very stage, should the ledger have lost its row; None when there is none."""
    if not bucket.exists(manifest_key(prefix)):
        return None
    try:
        manifest = Manifest.model_validate_json(bucket.get(manifest_key(prefix)))
    except ValueError as error:
        raise StorageError(
            f"s3://{bucket.name}/{manifest_key(prefix)}",
            expected="a manifest",
            got=str(error).splitlines()[0],
            remedy="delete that object; the stage then runs again",
        ) from error
    return manifest if manifest.stage_id == identity else None
