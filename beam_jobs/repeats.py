"""Beam steps before cleaning, where the recipe wants them: lines that many documents share, paragraphs that stood before.

Each chunk's extracted text waits in `work/`; hashes of lines and paragraphs meet, and what they find goes back to the
chunk that it is of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.formats import Extracted
from beam_jobs.numbers import fresh_source, is_fresh, numbers_of, rows_of, sources_of
from beam_jobs.part import HasOrigin, Origin, Part, in_chunks, read_objects, read_reserve
from beam_jobs.rules.boilerplate import common_lines, line_hashes, without_lines
from beam_jobs.rules.repeated_paragraphs import paragraph_hashes, without_paragraphs
from beam_jobs.simhash import Hashes
from beam_jobs.steps import Job, OnStore, among
from lake.recipe import PrepareRules

PARTITIONS = 16
RAW = pa.schema(
    [
        ("source_uri", pa.string()),
        ("source_etag", pa.string()),
        ("position", pa.string()),
        ("text", pa.string()),
        ("given_id", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
Row: TypeAlias = tuple[HasOrigin, Extracted]
Counted: TypeAlias = tuple[bytes, bytes]  # uint64 hashes, sorted and unique; int64 documents that have them


class Surveyed(NamedTuple):
    """What one chunk's documents are made of: `lines` with the documents that have them, `paragraphs` in order."""

    source: int
    n_documents: int
    lines: Counted
    paragraphs: bytes  # uint64 [n]


def is_wanted(rules: PrepareRules) -> bool:
    return rules.quality.boilerplate is not None or rules.quality.paragraphs is not None


def chunks_without_repeats(
    parts: beam.PCollection, pipeline: beam.Pipeline, job: Job, clean: Callable[[Job], beam.DoFn]
) -> beam.PCollection:
    """Parts → what `clean(job)` makes of `(source, places of repeated paragraphs)`, with common lines as a side input."""
    surveyed = parts | "survey" >> beam.ParDo(_Survey(job))
    common = (
        surveyed
        | "by line" >> beam.FlatMap(_by_line)
        | "lines" >> beam.GroupByKey()
        | "count lines" >> beam.Map(_counted)
        | "common lines" >> beam.CombineGlobally(_Lines(job.rules))
    )
    wanted = surveyed | "paragraphs of the drop" >> beam.CombineGlobally(_Paragraphs())
    old = (
        pipeline
        | "paragraphs of history" >> beam.Create(list(enumerate(job.paragraphs)))
        | "seen before" >> beam.ParDo(_History(), beam.pvalue.AsSingleton(wanted))
    )
    repeated = (
        (surveyed, old)
        | "all paragraphs" >> beam.Flatten()
        | "by paragraph" >> beam.FlatMap(_by_paragraph)
        | "paragraphs" >> beam.GroupByKey()
        | "repeated" >> beam.FlatMap(_repeated)
    )
    return (
        {"surveyed": surveyed | "surveyed" >> beam.Map(lambda each: (each.source, None)), "repeated": repeated}
        | "join repeats" >> beam.CoGroupByKey()
        | "clean" >> beam.ParDo(clean(job), beam.pvalue.AsSingleton(common))
    )


def without_repeats(
    rows: Sequence[Row], repeated: NDArray[np.int64], common: Hashes, rules: PrepareRules
) -> tuple[list[Row], list[Hashes]]:
    """A chunk's rows without its repeated paragraphs and common lines, and the hashes of each row's other paragraphs.

    `repeated` are places among the chunk's paragraphs. What nothing is left of becomes a dead letter.
    """
    left, kept, start = [], [], 0
    for origin, found in rows:
        text, hashes, reason = found.text, np.zeros(0, np.uint64), found.reason
        if rules.quality.paragraphs is not None and reason is None:
            hashes = paragraph_hashes(text, rules.quality.paragraphs)
            is_repeated = np.isin(np.arange(start, start + len(hashes)), repeated)
            start += len(hashes)
            text, _ = without_paragraphs(text, is_repeated, rules.quality.paragraphs)
            hashes = hashes[~is_repeated]
            reason = None if text.strip() else "repeated_paragraphs"
        if rules.quality.boilerplate is not None and reason is None:
            text, _ = without_lines(text, common)
            reason = None if text.strip() else "boilerplate"
        detail = found.detail if reason == found.reason else "nothing else is in it"
        left.append((origin, Extracted(found.position, text if reason is None else "", found.given_id, reason, detail)))
        kept.append(hashes)
    return left, kept


def index_of(table: pa.Table, paragraphs: Sequence[Hashes]) -> pa.Table:
    """`(place_id, hash)` of all paragraphs, `paragraphs[i]` being those of row `i`."""
    n_each = [len(each) for each in paragraphs]
    places = np.repeat(np.arange(len(table)), n_each)
    hashes = np.concatenate([np.zeros(0, np.uint64), *paragraphs])
    return pa.table({"place_id": table["place_id"].take(places), "hash": hashes})


def rows_of_raw(table: pa.Table) -> list[Row]:
    return [
        (
            Origin(row["source_uri"], row["source_etag"]),
            Extracted(row["position"], row["text"], row["given_id"], row["reason"], row["detail"]),
        )
        for row in table.to_pylist()
    ]


class _Survey(OnStore):
    """Part → `Surveyed` for each chunk; the chunk's extracted text waits in `work/`."""

    def process(self, part: Part) -> Iterator[Surveyed]:
        part, columns = Part(*part), Counter[str]()
        nothing = (b"", b"")
        if part.reserve is not None:  # it went through this when it was dropped
            past = self.job.reserves[part.reserve.history]
            source = fresh_source(part.number, 0)
            table = read_reserve(past.address.open(), part.reserve.key)
            self.store.put_table(self.job.work_key("reserve", source), table)
            yield Surveyed(source, 0, nothing, b"")
            return
        found = read_objects(self.sources, part, self.job.rules, columns)
        for number, rows in enumerate(in_chunks(found)):
            source = fresh_source(part.number, number)
            self.store.put_table(self.job.work_key("raw", source), _raw(rows))
            yield self._surveyed(source, [each.text for _, each in rows if each.reason is None])
        self.count_columns(part, columns)

    def _surveyed(self, source: int, texts: Sequence[str]) -> Surveyed:
        quality, empty = self.job.rules.quality, np.zeros(0, np.uint64)
        lines = [line_hashes(text, quality.boilerplate) for text in texts] if quality.boilerplate else []
        hashes, counts = np.unique(np.concatenate([empty, *lines]), return_counts=True)
        paragraphs = [paragraph_hashes(text, quality.paragraphs) for text in texts] if quality.paragraphs else []
        counted = (hashes.tobytes(), counts.astype(np.int64).tobytes())
        return Surveyed(source, len(texts), counted, np.concatenate([empty, *paragraphs]).tobytes())


def _raw(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "source_uri": origin.uri,
                "source_etag": origin.etag,
                "position": found.position,
                # Half a surrogate pair, which JSON lets through, is no UTF-8.
                "text": found.text.encode("utf-8", "replace").decode(),
                "given_id": found.given_id,
                "reason": found.reason,
                "detail": found.detail,
            }
            for origin, found in rows
        ],
        schema=RAW,
    )


def _by_line(found: Surveyed) -> Iterator[tuple[int, tuple[int, bytes, bytes]]]:
    hashes, counts = np.frombuffer(found.lines[0], np.uint64), np.frombuffer(found.lines[1], np.int64)
    for partition in range(PARTITIONS):
        chosen = hashes % PARTITIONS == partition
        n_documents = found.n_documents if partition == 0 else 0  # counted once
        if chosen.any() or n_documents:
            yield partition, (n_documents, hashes[chosen].tobytes(), counts[chosen].tobytes())


def _counted(item: tuple[int, Iterable[tuple[int, bytes, bytes]]]) -> tuple[int, Hashes, NDArray[np.int64]]:
    """One partition's lines, each with the documents that have it, without those that only one has."""
    told = list(item[1])
    hashes = np.frombuffer(b"".join(each for _, each, _ in told), np.uint64)
    counts = np.frombuffer(b"".join(each for _, _, each in told), np.int64)
    unique, inverse = np.unique(hashes, return_inverse=True)
    sums = np.bincount(inverse, weights=counts, minlength=len(unique)).astype(np.int64)
    return sum(n for n, _, _ in told), unique[sums > 1], sums[sums > 1]


class _Lines(beam.CombineFn):  # type: ignore[misc]  # Beam ships no types
    """Counted lines of all partitions → the common ones, sorted."""

    def __init__(self, rules: PrepareRules) -> None:
        self.rules = rules.quality.boilerplate

    def create_accumulator(self) -> list[Any]:
        return []

    def add_input(self, found: list[Any], more: Any) -> list[Any]:
        return [*found, more]

    def merge_accumulators(self, found: Iterable[list[Any]]) -> list[Any]:
        return [each for some in found for each in some]

    def extract_output(self, found: list[Any]) -> Hashes:
        if self.rules is None or not found:
            return np.zeros(0, np.uint64)
        n_documents, hashes, counts = zip(*found, strict=True)
        return common_lines(np.concatenate(hashes), np.concatenate(counts), sum(n_documents), self.rules)


class _Paragraphs(beam.CombineFn):  # type: ignore[misc]  # Beam ships no types
    """`Surveyed` → the hashes of all paragraphs, sorted and unique: what is wanted of history."""

    def create_accumulator(self) -> Hashes:
        return np.zeros(0, np.uint64)

    def add_input(self, hashes: Hashes, found: Surveyed) -> Hashes:
        return self.merge_accumulators([hashes, np.frombuffer(found.paragraphs, np.uint64)])

    def merge_accumulators(self, found: Iterable[Hashes]) -> Hashes:
        return np.unique(np.concatenate(list(found)))

    def extract_output(self, hashes: Hashes) -> Hashes:
        return hashes


class _History(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """File of paragraphs that were kept before → those of them that stand in the drop."""

    def process(self, item: tuple[int, tuple[Any, str]], wanted: Hashes) -> Iterator[Surveyed]:
        source, (address, key) = item
        hashes = address.open().get_table(key, ["hash"])["hash"].to_numpy()
        yield Surveyed(source, 0, (b"", b""), np.unique(hashes[among(hashes, wanted)]).tobytes())


def _by_paragraph(found: Surveyed) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
    hashes = np.frombuffer(found.paragraphs, np.uint64)
    numbers = numbers_of(found.source, len(hashes))
    for partition in range(PARTITIONS):
        chosen = hashes % PARTITIONS == partition
        if chosen.any():
            yield partition, (hashes[chosen].tobytes(), numbers[chosen].tobytes())


def _repeated(item: tuple[int, Iterable[tuple[bytes, bytes]]]) -> Iterator[tuple[int, bytes]]:
    """Paragraphs that met → for each new source, the places of those that stood before among its paragraphs."""
    hashes, numbers = (b"".join(each) for each in zip(*item[1], strict=True))
    order = np.lexsort((np.frombuffer(numbers, np.int64), np.frombuffer(hashes, np.uint64)))
    ordered = np.frombuffer(hashes, np.uint64)[order]
    repeats = np.zeros(len(order), bool)
    repeats[1:] = ordered[1:] == ordered[:-1]
    found = np.frombuffer(numbers, np.int64)[order][repeats]
    sources = sources_of(found)
    for source in np.unique(sources).tolist():
        if is_fresh(source):
            yield source, rows_of(found[sources == source]).tobytes()
