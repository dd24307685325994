"""Preparation as a Beam job against a plain Python loop that does the same work, on the same real text.

Both read the same objects from an S3 server, apply the same rules, find the same duplicates and write the same tables.
The loop has no parts, no shuffle and no intermediate files: what it takes less is the price of being able to run
anywhere. Each runs in a process of its own, three times, taking turns; the best run of each counts, as a busy machine
only ever adds to processor time.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from benchmarks._documentation import objects
from benchmarks.report import Figure, at_most, told
from lake.bucket import Bucket, BucketAddress
from lake.layout import dataset_prefix, inbox_prefix
from lake.ledger.arrivals import drop_id_of
from lake.recipe import Recipe
from lake.records import Drop
from tests.s3 import SECRET_ACCESS_KEY, address_of, nanio

RECIPE = Recipe(name="bench")
MIN_TEXT_BYTES = 20_000_000
ROOT = Path(__file__).parent.parent


class Measured(BaseModel):
    """One run, without the imports: `cpu_s` of the whole process, `wall_s`, and its largest memory."""

    model_config = ConfigDict(frozen=True)

    n_documents: int
    cpu_s: float
    wall_s: float
    import_cpu_s: float
    peak_bytes: int


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder, nanio(Path(folder)) as url:
        bucket = Bucket(address_of(url, "bench"))
        bucket.ensure(create=True)
        for name, content in objects():
            bucket.put(inbox_prefix(RECIPE.name) + name, content)
        runs = [(side, _measured(side, bucket.address)) for side in ("loop", "job", "job", "loop", "loop", "job")]
        n_bytes = _require_same(bucket)
    if n_bytes < MIN_TEXT_BYTES:
        raise ValueError(f"{n_bytes} bytes of text, expected at least {MIN_TEXT_BYTES}: install the dev packages")
    loop, job = (min((m for side, m in runs if side == wanted), key=lambda m: m.cpu_s) for wanted in ("loop", "job"))
    return _figures(loop, job, n_bytes)


def _figures(loop: Measured, job: Measured, n_bytes: int) -> list[Figure]:
    megabytes = n_bytes / 1e6
    what = f"{job.n_documents} documents, {megabytes:.1f} MB of text; kept and rejected rows compared and equal"
    return [
        at_most("job over plain loop", job.cpu_s / loop.cpu_s, 1.25, "×", f"CPU seconds without imports; {what}"),
        told("job, documents", job.n_documents / job.cpu_s, "1/s", "a CPU second, everything included but imports"),
        told("job, text", megabytes / job.cpu_s, "MB/s", "a CPU second, likewise"),
        told("job, wall", job.wall_s, "s", "one process, beside whatever else this machine did"),
        told("job, CPU", job.cpu_s, "s", "user and system time of its process"),
        told("loop, CPU", loop.cpu_s, "s", "user and system time of its process"),
        told("job, imports", job.import_cpu_s, "s", "CPU seconds before the first byte is read; once in a process"),
        told("job over loop, memory", job.peak_bytes / loop.peak_bytes, "×", "largest resident set of each process"),
    ]


def _measured(side: str, address: BucketAddress) -> Measured:
    """Run one side in a process of its own. The secret is a test's, and goes through stdin all the same."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.prepare", side],
        input=address.model_dump_json(),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{side}: {done.stderr.replace(SECRET_ACCESS_KEY, '…')[-2_000:]}")
    return Measured.model_validate_json(done.stdout.splitlines()[-1])


def _require_same(bucket: Bucket) -> int:
    """Both sides have kept and rejected the same rows. Returns the bytes of text they read."""
    outcomes = []
    for side in ("loop", "job"):
        prefix = dataset_prefix(RECIPE.name, side)
        kept = {row["id"]: row["text"] for row in _rows(bucket, f"{prefix}shards/", ["id", "text"])}
        columns = ["id", "reason", "duplicate_of", "similarity"]
        rejected = {row["id"]: tuple(row.values()) for row in _rows(bucket, f"{prefix}rejects/", columns)}
        outcomes.append((kept, rejected))
    if outcomes[0] != outcomes[1]:
        differing = outcomes[0][0].keys() ^ outcomes[1][0].keys()
        raise AssertionError(f"loop and job differ: {len(differing)} documents are kept by one of them only")
    metrics = _rows(bucket, f"{dataset_prefix(RECIPE.name, 'job')}metrics/", ["n_characters"])
    return sum(row["n_characters"] for row in metrics)


def _rows(bucket: Bucket, prefix: str, columns: list[str]) -> list[dict[str, Any]]:
    return pa.concat_tables(bucket.get_table(ref.key, columns) for ref in bucket.list(prefix)).to_pylist()


def _drop(bucket: Bucket) -> Drop:
    refs = tuple(bucket.list(inbox_prefix(RECIPE.name)))
    return Drop(drop_id=drop_id_of(refs), model=RECIPE.name, objects=refs, closed_at=datetime.now(UTC))


def _job(bucket: Bucket) -> int:
    from beam_jobs.prepare import prepare

    return prepare(_drop(bucket), RECIPE, bucket.address, "job", history=()).n_read


def _loop(bucket: Bucket) -> int:
    """Everything in memory, one document after the other, each compared with all before it."""
    from beam_jobs.clean import clean
    from beam_jobs.formats import extract
    from beam_jobs.part import SCHEMA, batch_of, document_id
    from beam_jobs.simhash import jaccard
    from beam_jobs.write import Drops, write_part

    rules, drop = RECIPE.prepare, _drop(bucket)
    found = []
    for ref in drop.objects:
        with closing(bucket.open_version(ref)) as stream:
            found += [(ref, clean(each, rules)) for each in extract(ref.key, stream, rules)]

    dropped = Drops([], [], [], [])
    signatures = np.zeros(len(found), np.uint64)
    first_of: dict[int, int] = {}
    kept_for: dict[int, tuple[int, float]] = {}  # row → the row kept for it, and how alike they are

    def drop_row(row: int, reason: str, kept: int, similarity: float) -> None:
        kept_for[row] = kept, similarity
        ref, document = found[kept]
        dropped.rows.append(row)
        dropped.reasons.append(reason)
        dropped.kept.append(document_id(ref, document.position))
        dropped.similarities.append(round(similarity, 6))

    rows: list[int] = []  # of the documents that no rule has rejected
    for row, (_, document) in enumerate(found):
        hashed = document.fingerprint
        if hashed is None:
            continue
        first = first_of.setdefault(hashed.exact, row)
        near = np.bitwise_count(signatures[: len(rows)] ^ np.uint64(hashed.signature)) <= rules.max_hamming
        signatures[len(rows)] = hashed.signature
        rows.append(row)
        if first != row:
            drop_row(row, "exact_duplicate", *kept_for.get(first, (first, 1.0)))
            continue
        candidates = {kept_for.get(other, (other, 1.0))[0] for other in (rows[n] for n in np.flatnonzero(near))}
        alike = [(jaccard(hashed.shingles, found[other][1].fingerprint.shingles), -other) for other in candidates]  # type: ignore[union-attr]
        similarity, negative = max(alike, default=(0.0, 0))
        if similarity >= rules.min_jaccard:
            drop_row(row, "near_duplicate", -negative, similarity)

    table = pa.Table.from_batches([batch_of(found)], schema=SCHEMA)
    write_part(bucket, dataset_prefix(RECIPE.name, "loop"), "n000000", table, dropped, rules)
    return len(found)


def _main(side: str) -> None:
    """One side, measured by itself: everything is imported before the clock starts, as in a long-lived worker."""
    from beam_jobs.clean import detect_language

    detect_language("loads its model")
    bucket = Bucket(BucketAddress.model_validate_json(sys.stdin.read()))
    bucket.delete_folder(dataset_prefix(RECIPE.name, side))
    import_cpu_s, started = time.process_time(), time.monotonic()
    n_documents = {"job": _job, "loop": _loop}[side](bucket)
    measured = Measured(
        n_documents=n_documents,
        cpu_s=time.process_time() - import_cpu_s,
        wall_s=time.monotonic() - started,
        import_cpu_s=import_cpu_s,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )
    print(json.dumps(measured.model_dump()))


if __name__ == "__main__":
    _main(sys.argv[1])
