"""Preparation as a Beam job against a plain Python loop that does the same work, on the same real text.

Both read the same objects from an S3 server, apply the same rules, find the same duplicates and write the same tables.
The loop has no shuffle and no intermediate files: what it takes less is the price of being able to run anywhere. Each
runs in a process of its own, in turns; the best run of each counts, as a busy machine only ever adds to processor time.
A last run of the job is looked at every few milliseconds: where its time goes.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from benchmarks._prepare_side import RECIPE, Measured, dropped, measured
from benchmarks.report import Figure, at_least, at_most, told
from lake.bucket import Bucket
from lake.layout import dataset_prefix

N_BYTES = 150_000_000
MIN_DOCUMENTS = 50_000
TURNS = ("loop", "job", "job", "loop")


def run() -> list[Figure]:
    with dropped(N_BYTES) as bucket:
        runs = [(side, measured(side, bucket)) for side in TURNS]
        n_characters = require_same(bucket)
        profile = measured("profile", bucket)
        index = {folder: _bytes(bucket, folder) for folder in ("signatures", "shingles")}
    loop, job = (min((m for side, m in runs if side == wanted), key=lambda m: m.cpu_s) for wanted in ("loop", "job"))
    return [*_figures(loop, job, n_characters), *_index(index), *shares(profile.places)]


def _figures(loop: Measured, job: Measured, n_characters: int) -> list[Figure]:
    megabytes = n_characters / 1e6
    what = f"{job.n_documents} documents, {megabytes:.0f} million characters; kept and rejected rows compared and equal"
    return [
        at_most("job over plain loop", job.cpu_s / loop.cpu_s, 1.25, "×", f"CPU seconds without imports; {what}"),
        at_least("documents", job.n_documents, MIN_DOCUMENTS, "", "handbooks and docstrings, all real"),
        told("job, documents", job.n_documents / job.cpu_s, "1/s", "a CPU second, everything included but imports"),
        told("job, text", megabytes / job.cpu_s, "MB/s", "a CPU second, likewise"),
        told("job, wall", job.wall_s, "s", "one process, beside whatever else this machine did"),
        told("job, CPU", job.cpu_s, "s", "user and system time of its process"),
        told("loop, CPU", loop.cpu_s, "s", "user and system time of its process"),
        told("job, imports", job.import_cpu_s, "s", "CPU seconds before the first byte is read; once in a process"),
        told("job, memory", job.peak_bytes / 1e6, "MB", "largest resident set"),
        told("loop, memory", loop.peak_bytes / 1e6, "MB", "largest resident set"),
    ]


def _index(index: dict[str, tuple[int, int]]) -> list[Figure]:
    return [
        told(f"index, {folder}", n_bytes / n_rows, "bytes", "in the store, a kept document")
        for folder, (n_bytes, n_rows) in index.items()
    ]


def shares(places: dict[str, dict[str, int]]) -> list[Figure]:
    """Share of the samples by module, largest first; its functions in the note."""
    total = sum(sum(functions.values()) for functions in places.values())
    figures = []
    for module, functions in sorted(places.items(), key=lambda each: -sum(each[1].values())):
        largest = Counter(functions).most_common(4)
        how = ", ".join(f"{function} {n / total:.1%}" for function, n in largest)
        figures.append(told(f"time in {module}", sum(functions.values()) / total, "", how))
    return figures


def require_same(bucket: Bucket) -> int:
    """Both sides have kept and rejected the same rows. Returns the characters of text they read."""
    outcomes = []
    for side in ("loop", "job"):
        prefix = dataset_prefix(RECIPE.name, side)
        kept = {row["place_id"]: row["text"] for row in _rows(bucket, f"{prefix}shards/", ["place_id", "text"])}
        columns = ["place_id", "reason", "duplicate_of_place", "similarity"]
        rejected = {row["place_id"]: tuple(row.values()) for row in _rows(bucket, f"{prefix}rejects/", columns)}
        outcomes.append((kept, rejected))
    if outcomes[0] != outcomes[1]:
        differing = outcomes[0][0].keys() ^ outcomes[1][0].keys()
        raise AssertionError(f"loop and job differ: {len(differing)} documents are kept by one of them only")
    metrics = _rows(bucket, f"{dataset_prefix(RECIPE.name, 'job')}metrics/", ["n_characters"])
    return sum(row["n_characters"] for row in metrics)


def _rows(bucket: Bucket, prefix: str, columns: list[str]) -> list[dict[str, Any]]:
    return pa.concat_tables(bucket.get_table(ref.key, columns) for ref in bucket.list(prefix)).to_pylist()  # type: ignore[no-any-return]


def _bytes(bucket: Bucket, folder: str) -> tuple[int, int]:
    """Bytes in the store, and rows."""
    refs = list(bucket.list(f"{dataset_prefix(RECIPE.name, 'job')}{folder}/"))
    return sum(ref.size_bytes for ref in refs), sum(len(bucket.get_table(ref.key, ["place_id"])) for ref in refs)
