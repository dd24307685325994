"""The Beam pipeline: its steps as DoFns over packed arrays, and how they hang together.

Text never goes through a shuffle. Each chunk keeps its rows in `work/`; only packed hashes travel (some 100 bytes a
document), then pairs, then the few rows to drop. All modes and runners give the same rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs import boilerplate, mixing, paragraphs
from beam_jobs.annotate import Annotator
from beam_jobs.dedup import Duplicate, decide, first_copies
from beam_jobs.erase import refuse
from beam_jobs.neighbours import Entries, Pairs, candidate_pairs, unique_pairs
from beam_jobs.numbers import by_source, fresh_source, numbers_at, place_of, source_name
from beam_jobs.part import (
    Part,
    clean_rows,
    column,
    ids_of,
    read_part,
    read_reserve,
    require_same_index,
    survivors,
)
from beam_jobs.past import IndexFile
from beam_jobs.simhash import Hashes, Shingles, Union
from beam_jobs.steps import PARTITIONS, SHINGLES, Job, OnStore, alive, among
from beam_jobs.verify import Verified, verify
from beam_jobs.write import NO_ROWS, LeftOut, write_source


class Packed(NamedTuple):
    """A source's hashes as bytes, in the order of its rows: what its documents are found by."""

    source: int
    exact: bytes  # uint64 [n]
    signatures: bytes  # uint64 [n]
    keys: bytes  # uint32 [n_keys]
    rows: bytes  # uint32 [n_keys], the row that each key belongs to


def build(pipeline: beam.Pipeline, job: Job, parts: Sequence[Part]) -> None:
    """Hang the steps together: parts → chunks → candidates → verified pairs → drops → choice → files."""
    dealt = in_turn(pipeline, parts)
    if job.rules.quality.boilerplate is not None:
        sources, common = boilerplate.surveyed(dealt, job)
        chunks = sources | "clean" >> beam.ParDo(_CleanSurveyed(job), beam.pvalue.AsSingleton(common))
    else:
        chunks = dealt | "clean" >> beam.ParDo(_Clean(job))
    joined = {
        "chunk": chunks | "sources" >> beam.Map(lambda packed: (packed.source, None)),
        "dropped": _duplicates(pipeline, chunks, job),
    } | "join" >> beam.CoGroupByKey()
    if job.rules.mix is not None:
        joined = (
            {"found": joined, "chosen": mixing.mixed(joined, job)}
            | "join choice" >> beam.CoGroupByKey()
            | "chosen" >> beam.Map(lambda item: (item[0], {**item[1]["found"][0], "chosen": item[1]["chosen"]}))
        )
    if job.rules.quality.paragraphs is not None:
        joined = paragraphs.shorten(joined, pipeline, job)
    joined | "write" >> beam.ParDo(_Write(job))


def in_turn(pipeline: beam.Pipeline, parts: Sequence[Part]) -> beam.PCollection:
    """The parts, dealt out to the workers in turn: alike in size but for the last one, which the order keeps last.

    Create's own reshuffle would shuffle them, and give one of two workers up to three fifths of the work.
    """
    return pipeline | "parts" >> beam.Create(parts, reshuffle=False) | beam.Reshuffle()


def _duplicates(pipeline: beam.Pipeline, chunks: beam.PCollection, job: Job) -> beam.PCollection:
    """`Packed` of the new documents → for each source, its duplicates by their number among its documents."""
    documents = chunks
    if job.history:  # asked for what the new documents hold, and so once all of them are known
        wanted = chunks | "hashes" >> beam.CombineGlobally(_Hashes())
        old = (
            pipeline
            | "history" >> beam.Create(list(enumerate(job.history)))
            | "of interest" >> beam.ParDo(_History(), beam.pvalue.AsSingleton(wanted))
        )
        documents = (chunks, old) | "new and old" >> beam.Flatten()
    return (
        documents
        | "by hash" >> beam.FlatMap(_by_hash)
        | "meet" >> beam.GroupByKey()
        | "candidates" >> beam.FlatMap(_candidates, job.rules.max_hamming)
        | "by source" >> beam.GroupByKey()
        | "verify" >> beam.ParDo(_Verify(job))
        | "all pairs" >> beam.GroupByKey()
        | "decide" >> beam.ParDo(_Decide(job))
    )


class _Cleaning(OnStore):
    """Puts the rows of a chunk aside, in `work/`, once models have had their say."""

    def setup(self) -> None:
        super().setup()
        self.annotator = Annotator(self.job, self.store)

    def kept(self, source: int, found: pa.Table) -> Packed:
        """What the chunk's documents are found by."""
        table = self.annotator.annotated(refuse(found, self.job.tombstones))
        kept = survivors(table)
        self.store.put_table(self.job.work_key("rows", source), table)
        shingles = kept.append_column("id", ids_of(kept)).select(SHINGLES)
        self.store.put_table(self.job.work_key("shingles", source), shingles)
        return packed(source, kept)


class _Clean(_Cleaning):
    """Part → `Packed` for each of its chunks."""

    def process(self, part: Part) -> Iterator[Packed]:
        part, columns = Part(*part), Counter[str]()
        for number, table in enumerate(self._chunks(part, columns)):
            yield self.kept(fresh_source(part.number, number), table)
        self.count_columns(part, columns)

    def _chunks(self, part: Part, columns: Counter[str]) -> Iterator[pa.Table]:
        if part.reserve is not None:
            past = self.job.reserves[part.reserve.history]
            yield read_reserve(past.address.open(), part.reserve.key, self.job.rules)
        else:
            yield from read_part(self.sources, part, self.job.rules, columns)


class _CleanSurveyed(_Cleaning):
    """Source of a chunk that was surveyed → `Packed` of what is left without common lines."""

    def process(self, source: int, common: Hashes) -> Iterator[Packed]:
        reserve = self.job.work_key("reserve", source)
        if self.store.exists(reserve):
            yield self.kept(source, read_reserve(self.store, reserve, self.job.rules))
            return
        rows = boilerplate.rows_of_raw(self.store.get_table(self.job.work_key("raw", source)))
        yield self.kept(source, clean_rows(boilerplate.without_boilerplate(rows, common), self.job.rules))


class _Hashes(beam.CombineFn):  # type: ignore[misc]  # Beam ships no types
    """`Packed` of all new documents → `(keys, exact hashes)`, sorted and unique: what is wanted of history."""

    def create_accumulator(self) -> tuple[Union[np.uint32], Union[np.uint64]]:
        return Union(np.zeros(0, np.uint32)), Union(np.zeros(0, np.uint64))

    def add_input(
        self, hashes: tuple[Union[np.uint32], Union[np.uint64]], found: Packed
    ) -> tuple[Union[np.uint32], Union[np.uint64]]:
        return hashes[0].add(np.frombuffer(found.keys, np.uint32)), hashes[1].add(np.frombuffer(found.exact, np.uint64))

    def merge_accumulators(
        self, found: Iterable[tuple[Union[np.uint32], Union[np.uint64]]]
    ) -> tuple[Union[np.uint32], Union[np.uint64]]:
        keys, exact = self.create_accumulator()
        for some_keys, some_exact in found:
            keys, exact = keys.add(some_keys.all()), exact.add(some_exact.all())
        return keys, exact

    def extract_output(self, hashes: tuple[Union[np.uint32], Union[np.uint64]]) -> tuple[Shingles, Hashes]:
        return hashes[0].all(), hashes[1].all()


class _History(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """File of a stored index → `Packed` of those of its documents that share a hash with a new one."""

    def process(self, item: tuple[int, IndexFile], wanted: tuple[Shingles, Hashes]) -> Iterator[Packed]:
        source, file = item
        store = file.address.open()
        table = store.get_table(file.signatures, ["exact", "signature", "keys"])
        require_same_index(table, store.uri(file.signatures))
        found = packed(source, table)
        keys, exact = np.frombuffer(found.keys, np.uint32), column(table, "exact")
        shared = among(keys, wanted[0])
        yield found._replace(
            exact=np.where(among(exact, wanted[1]), exact, 0).tobytes(),
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


Meeting: TypeAlias = tuple[str, int]
# A source's rows, uint32, their exact hashes or signatures, uint64, and the keys that they are found by, uint32.
Dealt: TypeAlias = tuple[int, bytes, bytes, bytes]


def _by_hash(found: Packed) -> Iterator[tuple[Meeting, Dealt]]:
    """Deal a source's hashes out: equal ones meet, whatever their sources. An exact hash of 0 stands for none."""
    exact, signatures = np.frombuffer(found.exact, np.uint64), np.frombuffer(found.signatures, np.uint64)
    keys, rows = np.frombuffer(found.keys, np.uint32), np.frombuffer(found.rows, np.uint32)
    for partition in range(PARTITIONS):
        of = np.flatnonzero((exact % PARTITIONS == partition) & (exact != 0)).astype(np.uint32)
        if len(of):
            yield ("exact", partition), (found.source, of.tobytes(), exact[of].tobytes(), b"")
        chosen = keys % PARTITIONS == partition
        if chosen.any():
            of = rows[chosen]
            yield ("keys", partition), (found.source, of.tobytes(), signatures[of].tobytes(), keys[chosen].tobytes())


def _candidates(item: tuple[Meeting, Iterable[Dealt]], max_hamming: int) -> Iterator[tuple[int, tuple[str, bytes]]]:
    """Hashes that met → pairs `(earlier, later)`, by the later one's source."""
    (kind, _), told = item
    sources, rows, hashes, keys = zip(*told, strict=True)
    numbers = np.concatenate(
        [numbers_at(source, np.frombuffer(each, np.uint32)) for source, each in zip(sources, rows, strict=True)]
    )
    of_each = np.frombuffer(b"".join(hashes), np.uint64)
    if kind == "exact":
        pairs = first_copies(of_each, numbers)
    else:
        entries = Entries(np.frombuffer(b"".join(keys), np.uint32), numbers, of_each)
        pairs = unique_pairs(candidate_pairs(entries, max_hamming))
    for source, some in by_source(pairs[:, 1], pairs):
        yield source, (kind, some.tobytes())


class _Verify(OnStore):
    """All candidates of one source's documents → those that are alike indeed."""

    def process(self, item: tuple[int, Iterable[tuple[str, bytes]]]) -> Iterator[tuple[int, Verified]]:
        told = list(item[1])
        pairs, copies = (_pairs(each for kind, each in told if kind == wanted) for wanted in ("keys", "exact"))
        yield 0, verify(pairs, copies, self.documents, self.job.rules.min_jaccard)


def _pairs(found: Iterable[bytes]) -> Pairs:
    return np.frombuffer(b"".join(found), np.int64).reshape(-1, 2)


class _Decide(OnStore):
    """All verified pairs → for each new source, its duplicates by their number among its documents."""

    def process(self, item: tuple[int, Iterable[Verified]]) -> Iterator[tuple[int, dict[int, Duplicate]]]:
        by_source: dict[int, dict[int, Duplicate]] = {}
        found = decide(item[1], self.job.rules.min_jaccard, self.documents.similarity)
        for number, duplicate in found.items():
            source, row = place_of(number)
            by_source.setdefault(source, {})[row] = duplicate
        yield from by_source.items()


class _Write(OnStore):
    """Join of a source with its duplicates and what quotas leave out of it → all that the job leaves, and its counts."""

    def process(self, item: tuple[int, dict[str, Iterable[Any]]]) -> None:
        source, joined = item
        short = self.job.work_key("short", source)
        is_short = self.job.rules.quality.paragraphs is not None and self.store.exists(short)
        table = self.store.get_table(short if is_short else self.job.work_key("rows", source))
        rows = alive(table)  # duplicates are numbered among them
        duplicates: dict[int, Duplicate] = next(iter(joined["dropped"]), {})
        chosen: mixing.Chosen = next(iter(joined.get("chosen", ())), mixing.EVERYTHING)
        left_out = LeftOut(
            {int(rows[row]): each for row, each in duplicates.items()},
            chosen.over_quota,
            chosen.reserved,
            next(iter(joined.get("emptied", ())), NO_ROWS),
        )
        table = mixing.with_values(table, chosen)
        name, index = source_name(source), self.job.work_key("paragraphs", source)
        known = self.store.get_table(index) if self.store.exists(index) else None
        counts = write_source(self.store, self.job.prefix, name, table, left_out, self.job.rules, known)
        self.store.put(f"{self.job.prefix}work/counts-{name}.json", json.dumps(counts).encode())
