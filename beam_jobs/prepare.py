"""The Beam job: read, clean, deduplicate against the drop and all history, split, write.

Text never goes through a shuffle. Each part keeps its rows in `work/`; only packed signatures travel (16 bytes a
document and table), then pairs, then the few rows to drop. All modes and runners give the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.dedup import decide
from beam_jobs.neighbours import candidate_pairs, tables
from beam_jobs.part import Part, column, parts_of, read_part, require_same_index, survivors, total
from beam_jobs.write import write_part
from lake.bucket import Bucket, BucketAddress
from lake.layout import dataset_prefix
from lake.recipe import PrepareRules, Recipe
from lake.records import SPLITS, Dataset, Drop

# The bare DirectRunner of this Beam version tries to download a binary.
LOCAL_RUNNER = ("--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",)

EXACT = "exact"


def prepare(
    drop: Drop,
    recipe: Recipe,
    address: BucketAddress,
    dataset_id: str,
    history: Sequence[Dataset],
    runner_options: Sequence[str] = LOCAL_RUNNER,
) -> Dataset:
    """Run the job; everything is below `datasets/<model>/<dataset_id>/` when it returns, the manifest is the caller's.

    Leaves `shards/<split>-*.parquet`, `signatures/`, `rejects/` and `metrics/`. Raises TidemillError when a history
    index does not fit, StorageError when the store fails.
    """
    bucket, prefix = Bucket(address), dataset_prefix(drop.model, dataset_id)
    bucket.delete_folder(prefix)  # what an attempt that died has left
    past = [ref.key for dataset in history for ref in bucket.list(f"{dataset.prefix}signatures/")]
    job = _Job(address, prefix, recipe.prepare, tuple(f"h{n:06d}" for n in range(len(past))))
    with beam.Pipeline(options=PipelineOptions(list(runner_options))) as pipeline:
        _build(pipeline, job, parts_of(drop.objects), dict(zip(job.history, past, strict=True)))
    counts = [json.loads(bucket.get(ref.key)) for ref in list(bucket.list(f"{prefix}work/counts-"))]
    bucket.delete_folder(f"{prefix}work/")
    rejected = total(count["rejected"] for count in counts)
    documents = total(count["documents"] for count in counts)
    return Dataset(
        dataset_id=dataset_id,
        model=drop.model,
        drop_id=drop.drop_id,
        prefix=prefix,
        history_ids=tuple(dataset.dataset_id for dataset in history),
        n_objects=len(drop.objects),
        n_read=sum(documents.values()) + sum(rejected.values()),
        n_kept=sum(documents.values()),
        rejected=dict(sorted(rejected.items())),
        redacted=total(count["redacted"] for count in counts),
        n_documents={split: documents.get(split, 0) for split in SPLITS},
        n_characters=total(count["characters"] for count in counts),
    )


class _Job:
    """What the workers need; small and picklable. Sources are `h…` for history and `n…` for the new parts, in order."""

    def __init__(self, address: BucketAddress, prefix: str, rules: PrepareRules, history: tuple[str, ...]) -> None:
        self.address, self.prefix, self.rules, self.history = address, prefix, rules, history

    def work_key(self, source: str) -> str:
        return f"{self.prefix}work/{source}.parquet"


def _build(pipeline: beam.Pipeline, job: _Job, parts: list[Part], past: dict[str, str]) -> None:
    fresh = pipeline | "parts" >> beam.Create(parts) | beam.Reshuffle() | "clean" >> beam.ParDo(_Clean(job))
    old = pipeline | "history" >> beam.Create(list(past.items())) | "signatures" >> beam.ParDo(_History(job))
    dropped = (
        (fresh, old)
        | beam.Flatten()
        | "by table" >> beam.FlatMap(_by_table, job.rules.max_hamming)
        | "tables" >> beam.GroupByKey()
        | "pairs" >> beam.FlatMap(_pairs, job.rules.max_hamming)
        | "all pairs" >> beam.GroupByKey()
        | "decide" >> beam.ParDo(_Decide(job, past))
    )
    (
        {"part": fresh | "sources" >> beam.Map(lambda packed: (packed[0], None)), "dropped": dropped}
        | "join" >> beam.CoGroupByKey()
        | "write" >> beam.ParDo(_Write(job))
    )


class _OnBucket(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """A DoFn with the bucket open."""

    def __init__(self, job: _Job) -> None:
        self.job = job

    def setup(self) -> None:
        self.bucket = Bucket(self.job.address)


Packed = tuple[str, bytes, bytes]


class _Clean(_OnBucket):
    """Part → `(source, signatures, exact hashes)`; its rows wait in `work/`."""

    def process(self, part: Part) -> Iterator[Packed]:
        source = f"n{part.number:06d}"
        table = read_part(self.bucket, Part(*part), self.job.rules)
        self.bucket.put_table(self.job.work_key(source), table)
        kept = survivors(table)
        yield source, column(kept, "signature").tobytes(), column(kept, "exact").tobytes()


class _History(_OnBucket):
    """`(source, key)` of a stored index → the same shape as a new part."""

    def process(self, item: tuple[str, str]) -> Iterator[Packed]:
        source, key = item
        table = self.bucket.get_table(key)
        require_same_index(table, f"s3://{self.bucket.name}/{key}")
        yield source, column(table, "signature").tobytes(), column(table, "exact").tobytes()


def _by_table(packed: Packed, max_hamming: int) -> Iterator[tuple[str, tuple[str, bytes]]]:
    source, signatures, exact = packed
    yield EXACT, (source, exact)
    for number in range(len(tables(max_hamming))):
        yield f"{number:03d}", (source, signatures)


def _pairs(item: tuple[str, Iterable[tuple[str, bytes]]], max_hamming: int) -> Iterator[tuple[int, tuple[str, Any]]]:
    """One table's candidate pairs; the exact table gives first copies, and the sizes that number the documents."""
    table, grouped = item
    sources = sorted(grouped)
    hashes = np.concatenate([np.frombuffer(packed, np.uint64) for _, packed in sources])
    if table != EXACT:
        yield 0, ("pairs", candidate_pairs(hashes, tables(max_hamming)[int(table)], max_hamming).tobytes())
        return
    yield 0, ("sizes", [(source, len(packed) // 8) for source, packed in sources])
    order = np.argsort(hashes, kind="stable")
    starts = np.concatenate([[True], hashes[order][1:] != hashes[order][:-1]]) if len(order) else np.zeros(0, bool)
    firsts = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    copies = np.stack([order[~starts], firsts[~starts]], axis=1) if len(order) else np.zeros((0, 2), np.int64)
    yield 0, ("copies", copies.astype(np.int64).tobytes())


class _Decide(_OnBucket):
    """All pairs → for each new part, `(row, reason, kept id, similarity)` of its duplicates."""

    def __init__(self, job: _Job, past: dict[str, str]) -> None:
        super().__init__(job)
        self.past = past

    def process(self, item: tuple[int, Iterable[tuple[str, Any]]]) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
        told = list(item[1])
        sizes: list[tuple[str, int]] = next(value for kind, value in told if kind == "sizes")
        pairs = {pair for kind, value in told if kind == "pairs" for pair in _unpacked(value)}
        copies = dict(pair for kind, value in told if kind == "copies" for pair in _unpacked(value))
        rows = _Rows(self.bucket, self.job, self.past, sizes)
        n_history = sum(n for source, n in sizes if source in self.past)
        found = decide(pairs, copies, rows.shingles, n_history, self.job.rules.min_jaccard)
        by_source: dict[str, list[tuple[Any, ...]]] = {}
        for number in sorted(found):
            source, row = rows.place(number)
            duplicate = found[number]
            kept = rows.identity(duplicate.kept)
            by_source.setdefault(source, []).append((row, duplicate.reason, kept, round(duplicate.similarity, 6)))
        yield from by_source.items()


def _unpacked(value: bytes) -> Iterator[tuple[int, int]]:
    yield from map(tuple, np.frombuffer(value, np.int64).reshape(-1, 2).tolist())


class _Rows:
    """Document number → its part, id and shingles; reads only the parts that candidates lie in."""

    def __init__(self, bucket: Bucket, job: _Job, past: dict[str, str], sizes: list[tuple[str, int]]) -> None:
        self._bucket, self._job, self._past = bucket, job, past
        self._sources = [source for source, _ in sizes]
        self._starts = np.cumsum([0] + [n for _, n in sizes])
        self._loaded: dict[str, pa.Table] = {}

    def place(self, number: int) -> tuple[str, int]:
        """`(source, row among the source's survivors)`."""
        index = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._sources[index], number - int(self._starts[index])

    def identity(self, number: int) -> str:
        source, row = self.place(number)
        return str(self._table(source)["id"][row].as_py())

    def shingles(self, number: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        source, row = self.place(number)
        return np.asarray(self._table(source)["shingles"][row].values.to_numpy(), dtype=np.uint64)

    def _table(self, source: str) -> pa.Table:
        if source not in self._loaded:
            key = self._past.get(source) or self._job.work_key(source)
            columns = ["id", "shingles"] + ([] if source in self._past else ["reason"])
            table = self._bucket.get_table(key, columns)
            self._loaded[source] = (table if source in self._past else survivors(table)).combine_chunks()
        return self._loaded[source]


class _Write(_OnBucket):
    """Join of a part with its duplicates → shards, signatures, rejects, metrics, counts."""

    def process(self, item: tuple[str, dict[str, Iterable[Any]]]) -> None:
        source, joined = item
        if not list(joined["part"]) or source.startswith("h"):
            return
        dropped = {row[0]: row[1:] for rows in joined["dropped"] for row in rows}
        table = self.bucket.get_table(self.job.work_key(source))
        numbers = np.flatnonzero(pc.is_null(table["reason"]).to_numpy(zero_copy_only=False))
        by_row = {int(numbers[row]): duplicate for row, duplicate in dropped.items()}
        counts = write_part(self.bucket, self.job.prefix, source, table, by_row, self.job.rules)
        self.bucket.put(f"{self.job.prefix}work/counts-{source}.json", json.dumps(counts).encode())
