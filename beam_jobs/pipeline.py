"""The Beam pipeline: its steps as DoFns over packed arrays, and how they hang together.

Text never goes through a shuffle. Each chunk keeps its rows in `work/`; only packed hashes travel (some 100 bytes a
document), then pairs, then the few rows to drop. All modes and runners give the same rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.dedup import Duplicate, decide, first_copies
from beam_jobs.erase import refuse
from beam_jobs.neighbours import Entries, Pairs, candidate_pairs
from beam_jobs.numbers import fresh_source, is_fresh, numbers_of, place_of, source_name, sources_of
from beam_jobs.part import Part, column, ids_of, read_part, read_reserve, require_same_index, survivors
from beam_jobs.past import IndexFile, Past
from beam_jobs.simhash import Hashes, Shingles
from beam_jobs.verify import Documents, Verified, verify
from beam_jobs.write import LeftOut, write_source
from lake.recipe import PrepareRules
from lake.store import Address
from lake.tombstones import Tombstones

# How many ways candidates are looked for side by side: hashes are dealt out by their lowest bits.
PARTITIONS = 16
_SHINGLES = ["id", "place_id", "shingles"]


@dataclass(frozen=True)
class Job:
    """What the workers need; small and picklable. `sources` are the stores of objects, by the name that a ref gives."""

    store: Address
    prefix: str
    rules: PrepareRules
    sources: Mapping[str, Address]
    history: tuple[IndexFile, ...]
    reserves: tuple[Past, ...]
    tombstones: Tombstones

    def work_key(self, kind: str, source: int) -> str:
        return f"{self.prefix}work/{kind}-{source_name(source)}.parquet"


class Packed(NamedTuple):
    """A source's hashes as bytes, in the order of its rows: what its documents are found by."""

    source: int
    exact: bytes  # uint64 [n]
    signatures: bytes  # uint64 [n]
    keys: bytes  # uint32 [n_keys]
    rows: bytes  # uint32 [n_keys], the row that each key belongs to


def build(pipeline: beam.Pipeline, job: Job, parts: Sequence[Part]) -> None:
    """Hang the steps together: parts → chunks → candidates → verified pairs → drops → files."""
    chunks = pipeline | "parts" >> beam.Create(parts) | beam.Reshuffle() | "clean" >> beam.ParDo(_Clean(job))
    wanted = chunks | "hashes" >> beam.CombineGlobally(_Hashes())
    old = (
        pipeline
        | "history" >> beam.Create(list(enumerate(job.history)))
        | "of interest" >> beam.ParDo(_History(), beam.pvalue.AsSingleton(wanted))
    )
    dropped = (
        (chunks, old)
        | beam.Flatten()
        | "by hash" >> beam.FlatMap(_by_hash)
        | "meet" >> beam.GroupByKey()
        | "candidates" >> beam.FlatMap(_candidates, job.rules.max_hamming)
        | "by source" >> beam.GroupByKey()
        | "verify" >> beam.ParDo(_Verify(job))
        | "all pairs" >> beam.GroupByKey()
        | "decide" >> beam.ParDo(_Decide(job))
    )
    (
        {"chunk": chunks | "sources" >> beam.Map(lambda packed: (packed.source, None)), "dropped": dropped}
        | "join" >> beam.CoGroupByKey()
        | "write" >> beam.ParDo(_Write(job))
    )


class _OnStore(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """A DoFn with the job's stores open."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def setup(self) -> None:
        self.store = self.job.store.open()
        self.sources = cache(lambda name: self.job.sources[name].open())
        self.documents = Documents(self._shingles)

    def _shingles(self, source: int) -> pa.Table:
        if is_fresh(source):
            return self.store.get_table(self.job.work_key("shingles", source))
        file = self.job.history[source]
        return file.address.open().get_table(file.shingles, _SHINGLES)


class _Clean(_OnStore):
    """Part → `Packed` for each of its chunks; their rows wait in `work/`."""

    def process(self, part: Part) -> Iterator[Packed]:
        part, columns = Part(*part), Counter[str]()
        for number, chunk in enumerate(self._chunks(part, columns)):
            source = fresh_source(part.number, number)
            table = refuse(chunk, self.job.tombstones)
            kept = survivors(table)
            self.store.put_table(self.job.work_key("rows", source), table)
            shingles = kept.append_column("id", ids_of(kept)).select(_SHINGLES)
            self.store.put_table(self.job.work_key("shingles", source), shingles)
            yield packed(source, kept)
        self.store.put(f"{self.job.prefix}work/columns-{part.number:06d}.json", json.dumps(columns).encode())

    def _chunks(self, part: Part, columns: Counter[str]) -> Iterator[pa.Table]:
        if part.reserve is not None:
            past = self.job.reserves[part.reserve.history]
            yield read_reserve(past.address.open(), part.reserve.key)
        else:
            yield from read_part(self.sources, part, self.job.rules, columns)


class _Hashes(beam.CombineFn):  # type: ignore[misc]  # Beam ships no types
    """`Packed` of all new documents → `(keys, exact hashes)`, sorted and unique: what is wanted of history."""

    def create_accumulator(self) -> tuple[Shingles, Hashes]:
        return np.zeros(0, np.uint32), np.zeros(0, np.uint64)

    def add_input(self, hashes: tuple[Shingles, Hashes], found: Packed) -> tuple[Shingles, Hashes]:
        return self.merge_accumulators(
            [hashes, (np.frombuffer(found.keys, np.uint32), np.frombuffer(found.exact, np.uint64))]
        )

    def merge_accumulators(self, found: Iterable[tuple[Shingles, Hashes]]) -> tuple[Shingles, Hashes]:
        keys, exact = zip(*found, strict=True)
        return np.unique(np.concatenate(keys)), np.unique(np.concatenate(exact))

    def extract_output(self, hashes: tuple[Shingles, Hashes]) -> tuple[Shingles, Hashes]:
        return hashes


class _History(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """File of a stored index → `Packed` of those of its documents that share a hash with a new one."""

    def process(self, item: tuple[int, IndexFile], wanted: tuple[Shingles, Hashes]) -> Iterator[Packed]:
        source, file = item
        store = file.address.open()
        table = store.get_table(file.signatures, ["exact", "signature", "keys"])
        require_same_index(table, store.uri(file.signatures))
        found = packed(source, table)
        keys, exact = np.frombuffer(found.keys, np.uint32), column(table, "exact")
        shared = _among(keys, wanted[0])
        yield found._replace(
            exact=np.where(_among(exact, wanted[1]), exact, 0).tobytes(),
            keys=keys[shared].tobytes(),
            rows=np.frombuffer(found.rows, np.uint32)[shared].tobytes(),
        )


def packed(source: int, table: pa.Table) -> Packed:
    """The hashes of a table's rows."""
    lists = table["keys"].combine_chunks()
    keys = lists.flatten().to_numpy() if len(table) else np.zeros(0, np.uint32)
    n_keys = pc.list_value_length(table["keys"]).to_numpy() if len(table) else np.zeros(0, np.int64)
    rows = np.repeat(np.arange(len(table), dtype=np.uint32), n_keys)
    return Packed(
        source, column(table, "exact").tobytes(), column(table, "signature").tobytes(), keys.tobytes(), rows.tobytes()
    )


def _among(values: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether each value is in a sorted array."""
    if not len(wanted):
        return np.zeros(len(values), bool)
    found: np.ndarray[Any, np.dtype[np.bool_]] = (
        wanted[np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)] == values
    )
    return found


Meeting: TypeAlias = tuple[str, int]


def _by_hash(found: Packed) -> Iterator[tuple[Meeting, tuple[bytes, ...]]]:
    """Deal a source's hashes out: equal ones meet, whatever their sources. An exact hash of 0 stands for none."""
    exact, signatures = np.frombuffer(found.exact, np.uint64), np.frombuffer(found.signatures, np.uint64)
    keys, rows = np.frombuffer(found.keys, np.uint32), np.frombuffer(found.rows, np.uint32)
    numbers = numbers_of(found.source, len(exact))
    for partition in range(PARTITIONS):
        chosen = (exact % PARTITIONS == partition) & (exact != 0)
        if chosen.any():
            yield ("exact", partition), (exact[chosen].tobytes(), numbers[chosen].tobytes())
        chosen = keys % PARTITIONS == partition
        if chosen.any():
            of = rows[chosen]
            yield ("keys", partition), (keys[chosen].tobytes(), numbers[of].tobytes(), signatures[of].tobytes())


def _candidates(
    item: tuple[Meeting, Iterable[tuple[bytes, ...]]], max_hamming: int
) -> Iterator[tuple[int, tuple[str, bytes]]]:
    """Hashes that met → pairs `(earlier, later)`, by the later one's source."""
    (kind, _), told = item
    columns = [b"".join(each) for each in zip(*told, strict=True)]
    if kind == "exact":
        pairs = first_copies(np.frombuffer(columns[0], np.uint64), np.frombuffer(columns[1], np.int64))
    else:
        entries = Entries(
            np.frombuffer(columns[0], np.uint32),
            np.frombuffer(columns[1], np.int64),
            np.frombuffer(columns[2], np.uint64),
        )
        pairs = np.unique(candidate_pairs(entries, max_hamming), axis=0)
    sources = sources_of(pairs[:, 1])
    for source in np.unique(sources).tolist():
        yield source, (kind, pairs[sources == source].tobytes())


class _Verify(_OnStore):
    """All candidates of one source's documents → those that are alike indeed."""

    def process(self, item: tuple[int, Iterable[tuple[str, bytes]]]) -> Iterator[tuple[int, Verified]]:
        told = list(item[1])
        pairs, copies = (_pairs(each for kind, each in told if kind == wanted) for wanted in ("keys", "exact"))
        yield 0, verify(pairs, copies, self.documents, self.job.rules.min_jaccard)


def _pairs(found: Iterable[bytes]) -> Pairs:
    return np.frombuffer(b"".join(found), np.int64).reshape(-1, 2)


class _Decide(_OnStore):
    """All verified pairs → for each new source, its duplicates by their number among its documents."""

    def process(self, item: tuple[int, Iterable[Verified]]) -> Iterator[tuple[int, dict[int, Duplicate]]]:
        by_source: dict[int, dict[int, Duplicate]] = {}
        found = decide(item[1], self.job.rules.min_jaccard, self.documents.similarity)
        for number, duplicate in found.items():
            source, row = place_of(number)
            by_source.setdefault(source, {})[row] = duplicate
        yield from by_source.items()


class _Write(_OnStore):
    """Join of a source with its duplicates → shards, signatures, rejects, metrics, counts."""

    def process(self, item: tuple[int, dict[str, Iterable[Any]]]) -> None:
        source, joined = item
        table = self.store.get_table(self.job.work_key("rows", source))
        # Duplicates are numbered among the documents that no rule has rejected.
        rows = np.flatnonzero(pc.is_null(table["reason"]).to_numpy(zero_copy_only=False))
        duplicates: dict[int, Duplicate] = next(iter(joined["dropped"]), {})
        left_out = LeftOut({int(rows[row]): each for row, each in duplicates.items()}, np.zeros(0, np.int64))
        name = source_name(source)
        counts = write_source(self.store, self.job.prefix, name, table, left_out, self.job.rules)
        self.store.put(f"{self.job.prefix}work/counts-{name}.json", json.dumps(counts).encode())
