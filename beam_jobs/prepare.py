"""The Beam job: read, clean, deduplicate against the drop and all history, split, write.

Text never goes through a shuffle. Each part keeps its rows in `work/`; only packed signatures travel (16 bytes a
document and table), then pairs, then the few rows to drop. All modes and runners give the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.dedup import decide, first_copies
from beam_jobs.documents import Documents
from beam_jobs.erase import refuse
from beam_jobs.neighbours import Pairs, candidate_pairs, tables
from beam_jobs.part import Part, column, parts_of, read_part, require_same_index, survivors, total
from beam_jobs.write import Drops, write_part
from lake.bucket import Bucket, BucketAddress
from lake.errors import StorageError, TidemillError
from lake.layout import dataset_prefix
from lake.recipe import PrepareRules, Recipe
from lake.records import SPLITS, Dataset, Drop
from lake.tombstones import NOTHING_ERASED, Tombstones

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
    *,
    prefix: str | None = None,
    tombstones: Tombstones = NOTHING_ERASED,
) -> Dataset:
    """Run the job; everything is below `prefix` (`datasets/<model>/<dataset_id>/`) when it returns.

    The manifest is the caller's. What `tombstones` name becomes a reject without text.

    Leaves `shards/<split>-*.parquet`, `signatures/`, `rejects/` and `metrics/`. Raises TidemillError when a history
    index does not fit, StorageError when the store fails.
    """
    bucket, prefix = Bucket(address), prefix or dataset_prefix(drop.model, dataset_id)
    bucket.delete_folder(prefix)  # what an attempt that died has left
    past = [ref.key for dataset in history for ref in bucket.list(f"{dataset.prefix}signatures/")]
    job = _Job(address, prefix, recipe.prepare, tuple(f"h{n:06d}" for n in range(len(past))), tombstones)
    with _own_errors(), beam.Pipeline(options=PipelineOptions(list(runner_options))) as pipeline:
        _build(pipeline, job, parts_of(drop.objects), dict(zip(job.history, past, strict=True)))
    counts = [json.loads(bucket.get(ref.key)) for ref in list(bucket.list(f"{prefix}work/counts-"))]
    bucket.delete_folder(f"{prefix}work/")
    rejected = total(count["rejected"] for count in counts)
    documents = total(count["documents"] for count in counts)
    _require_access(bucket, drop, rejected.get("access_denied", 0))
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


def _require_access(bucket: Bucket, drop: Drop, n_denied: int) -> None:
    """One key that may not be read is a dead letter; when none may be, the credentials are at fault, not the objects."""
    if n_denied and n_denied == len(drop.objects) > 1:
        raise StorageError(
            f"s3://{bucket.name}, drop {drop.drop_id}",
            expected=f"{n_denied} objects that may be read",
            got="AccessDenied for all of them",
            remedy="give this key the rights to read the inbox; the drop is tried again",
        )


@contextmanager
def _own_errors() -> Iterator[None]:
    """Beam raises RuntimeError for whatever a worker raised; what we raised there is what the caller can act on."""
    try:
        yield
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, TidemillError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise cause from None


class _Job:
    """What the workers need; small and picklable. Sources are `h…` for history and `n…` for the new parts, in order."""

    def __init__(
        self,
        address: BucketAddress,
        prefix: str,
        rules: PrepareRules,
        history: tuple[str, ...],
        tombstones: Tombstones,
    ) -> None:
        self.address, self.prefix, self.rules, self.history = address, prefix, rules, history
        self.tombstones = tombstones

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
        table = refuse(read_part(self.bucket, Part(*part), self.job.rules), self.job.tombstones)
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
    if table == EXACT:
        yield 0, ("sizes", [(source, len(packed) // 8) for source, packed in sources])
        yield 0, ("copies", first_copies(hashes).tobytes())
    else:
        yield 0, ("pairs", candidate_pairs(hashes, tables(max_hamming)[int(table)], max_hamming).tobytes())


class _Decide(_OnBucket):
    """All pairs → for each new part, `(row, reason, kept id, similarity)` of its duplicates."""

    def __init__(self, job: _Job, past: dict[str, str]) -> None:
        super().__init__(job)
        self.past = past

    def process(self, item: tuple[int, Iterable[tuple[str, Any]]]) -> Iterator[tuple[str, Drops]]:
        told = list(item[1])
        sizes: list[tuple[str, int]] = next(value for kind, value in told if kind == "sizes")
        pairs = np.concatenate([_unpacked(value) for kind, value in told if kind == "pairs"])
        copies = np.concatenate([_unpacked(value) for kind, value in told if kind == "copies"])
        documents = Documents(sizes, self._table)
        n_history = sum(n for source, n in sizes if source in self.past)
        found = decide(pairs, dict(copies.tolist()), documents.shingles, n_history, self.job.rules.min_jaccard)
        by_source: dict[str, Drops] = {}
        for number, duplicate in sorted(found.items()):
            source, row = documents.place(number)
            drops = by_source.setdefault(source, Drops([], [], [], []))
            drops.rows.append(row)
            drops.reasons.append(duplicate.reason)
            drops.kept.append(documents.identity(duplicate.kept))
            drops.similarities.append(round(duplicate.similarity, 6))
        yield from by_source.items()

    def _table(self, source: str) -> pa.Table:
        if source in self.past:
            return self.bucket.get_table(self.past[source], ["id", "shingles"])
        return survivors(self.bucket.get_table(self.job.work_key(source), ["id", "shingles", "reason"]))


def _unpacked(value: bytes) -> Pairs:
    return np.frombuffer(value, np.int64).reshape(-1, 2)


class _Write(_OnBucket):
    """Join of a part with its duplicates → shards, signatures, rejects, metrics, counts."""

    def process(self, item: tuple[str, dict[str, Iterable[Any]]]) -> None:
        source, joined = item
        table = self.bucket.get_table(self.job.work_key(source))
        # Duplicates are numbered among the documents that no rule has rejected.
        numbers = np.flatnonzero(pc.is_null(table["reason"]).to_numpy(zero_copy_only=False))
        dropped = next(iter(joined["dropped"]), Drops([], [], [], []))
        dropped = dropped._replace(rows=numbers[dropped.rows].tolist())
        counts = write_part(self.bucket, self.job.prefix, source, table, dropped, self.job.rules)
        self.bucket.put(f"{self.job.prefix}work/counts-{source}.json", json.dumps(counts).encode())
