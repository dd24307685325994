"""Beam steps before cleaning, where the recipe wants them: lines that many documents share are left out of all.

Each chunk's extracted text waits in `work/` until the lines of all are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.formats import Extracted
from beam_jobs.numbers import fresh_source
from beam_jobs.part import HasOrigin, Origin, Part, in_chunks, read_objects
from beam_jobs.rules.boilerplate import common_lines, line_hashes, without_lines
from beam_jobs.simhash import Hashes
from beam_jobs.steps import PARTITIONS, Job, OnStore
from lake.recipe import PrepareRules

REASON = "boilerplate"
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


class Surveyed(NamedTuple):
    """The lines of one chunk's documents: uint64 hashes, sorted and unique, and int64 documents that have them."""

    source: int
    n_documents: int
    lines: bytes
    counts: bytes


def surveyed(parts: beam.PCollection, job: Job) -> tuple[beam.PCollection, beam.PCollection]:
    """Parts → the sources of their chunks, and the hashes of the drop's common lines."""
    found = parts | "survey" >> beam.ParDo(_Survey(job))
    common = (
        found
        | "by line" >> beam.FlatMap(_by_line)
        | "lines" >> beam.GroupByKey()
        | "count lines" >> beam.Map(_counted)
        | "common lines" >> beam.CombineGlobally(_Lines(job.rules))
    )
    return found | "surveyed" >> beam.Map(lambda each: each.source), common


def without_boilerplate(rows: Sequence[Row], common: Hashes) -> list[Row]:
    """Rows without common lines. What nothing is left of becomes a dead letter."""
    left: list[Row] = []
    for origin, found in rows:
        text, n_lines = without_lines(found.text, common) if found.reason is None else ("", 0)
        if n_lines and not text.strip():
            detail = f"all of its {n_lines} lines stand in many documents"
            left.append((origin, Extracted(found.position, "", found.given_id, REASON, detail)))
        elif n_lines:
            left.append((origin, Extracted(found.position, text, found.given_id)))
        else:
            left.append((origin, found))
    return left


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
        if part.reserve is not None:  # it went through this when it was dropped
            past = self.job.reserves[part.reserve.history]
            source = fresh_source(part.number, 0)
            table = past.address.open().get_table(part.reserve.key)
            self.store.put_table(self.job.work_key("reserve", source), table)
            yield Surveyed(source, 0, b"", b"")
            return
        found = read_objects(self.sources, part, self.job.rules, columns)
        for number, rows in enumerate(in_chunks(found)):
            source = fresh_source(part.number, number)
            self.store.put_table(self.job.work_key("raw", source), _raw(rows))
            yield self._surveyed(source, [each.text for _, each in rows if each.reason is None])
        self.count_columns(part, columns)

    def _surveyed(self, source: int, texts: Sequence[str]) -> Surveyed:
        rules = self.job.rules.quality.boilerplate
        lines = [line_hashes(text, rules) for text in texts] if rules is not None else []
        hashes, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *lines]), return_counts=True)
        return Surveyed(source, len(texts), hashes.tobytes(), counts.astype(np.int64).tobytes())


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
    hashes, counts = np.frombuffer(found.lines, np.uint64), np.frombuffer(found.counts, np.int64)
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
