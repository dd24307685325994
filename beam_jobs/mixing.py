"""Beam steps after deduplication, where the recipe has a mix: what is kept is weighed, then chosen by quotas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.mix.distinctiveness import DocumentFrequencies, document_frequencies
from beam_jobs.mix.quota import select
from beam_jobs.mix.terms import terms_of
from beam_jobs.mix.value import document_values
from beam_jobs.part import column
from beam_jobs.steps import Job, OfKept, OnStore
from lake.recipe import Mix

REPORT = "work/mix.json"


class Weighed(NamedTuple):
    """What is left of a source after deduplication: rows of its table, int64 domains and tokens, float64 values."""

    source: int
    rows: bytes
    domains: bytes
    n_tokens: bytes
    values: bytes


class Chosen(NamedTuple):
    """Rows that quotas leave out of a source: all of them, and those that later drops may have."""

    over_quota: NDArray[np.int64]
    reserved: NDArray[np.int64]
    values: Mapping[int, float]


EVERYTHING = Chosen(np.zeros(0, np.int64), np.zeros(0, np.int64), {})


def with_values(table: pa.Table, chosen: Chosen) -> pa.Table:
    """The table with the values by which it was chosen from."""
    if not chosen.values:
        return table
    found = np.full(len(table), None, object)
    found[list(chosen.values)] = list(chosen.values.values())
    place = table.schema.get_field_index("value")
    return table.set_column(place, table.schema.field(place), pa.array(found, pa.float64()))


def mixed(joined: beam.PCollection, job: Job) -> beam.PCollection:
    """`(source, {chunk, dropped})` → `(source, Chosen)`."""
    total = joined | "count terms" >> beam.ParDo(_Count(job)) | "all terms" >> beam.CombineGlobally(sum)
    return (
        joined
        | "weigh" >> beam.ParDo(_Weigh(job), beam.pvalue.AsSingleton(total))
        | "all documents" >> beam.GroupByKey()
        | "choose" >> beam.ParDo(_Choose(job))
    )


class _Count(OfKept):
    """In how many of a source's documents each term stands. Gives the number of documents; tables wait in `work/`."""

    def process(self, item: tuple[int, dict[str, Iterable[Any]]]) -> Iterator[int]:
        mix = self.job.rules.mix
        if mix is None or mix.value != "tfidf":
            return
        table, _ = self.kept(item, ["text"])
        found = document_frequencies(terms_of(table["text"].to_pylist()))
        self.store.put_table(self.job.work_key("terms", item[0]), found.to_table())
        yield len(table)


class _Weigh(OfKept):
    """A source's documents with their domain, tokens and value against the history, once all terms are counted."""

    def setup(self) -> None:
        super().setup()
        self._frequencies: tuple[DocumentFrequencies, DocumentFrequencies] | None = None

    def process(self, item: tuple[int, dict[str, Iterable[Any]]], _n_documents: int) -> Iterator[tuple[int, Weighed]]:
        mix = self._mix()
        table, rows = self.kept(item, ["text", "exact", "domain", "n_tokens"])
        place = {label: number for number, label in enumerate(mix.labels)}
        terms = terms_of(table["text"].to_pylist() if mix.value == "tfidf" else [""] * len(table))
        history, drop = self.frequencies() if mix.value == "tfidf" else (DocumentFrequencies.none(),) * 2
        values = document_values(mix, terms, history, drop, column(table, "exact"))
        domains = np.array([place[each] for each in table["domain"].to_pylist()], np.int64)
        tokens = table["n_tokens"].to_numpy().astype(np.int64)
        yield 0, Weighed(item[0], rows.tobytes(), domains.tobytes(), tokens.tobytes(), values.tobytes())

    def frequencies(self) -> tuple[DocumentFrequencies, DocumentFrequencies]:
        """Of the history and of the drop; a worker sums them up once."""
        if self._frequencies is None:
            history = [self.job.frequencies] if self.job.frequencies else []
            drop = list(self.store.keys(f"{self.job.prefix}work/terms-"))
            self._frequencies = self._sum(history), self._sum(drop)
        return self._frequencies

    def _sum(self, keys: Iterable[str]) -> DocumentFrequencies:
        total = DocumentFrequencies.none()
        for key in keys:
            total = total + DocumentFrequencies.from_table(self.store.get_table(key), self.store.uri(key))
        return total

    def _mix(self) -> Mix:
        mix = self.job.rules.mix
        assert mix is not None  # the step is hung up only where there is one  # noqa: S101
        return mix


class _Choose(OnStore):
    """All documents → those that quotas leave out, by source. What became of each domain waits in `work/`."""

    def process(self, item: tuple[int, Iterable[Weighed]]) -> Iterator[tuple[int, Chosen]]:
        mix = self.job.rules.mix
        assert mix is not None  # see above  # noqa: S101
        found = sorted(item[1])
        rows = [np.frombuffer(each.rows, np.int64) for each in found]
        domains = [np.frombuffer(each.domains, np.int64) for each in found]
        tokens = [np.frombuffer(each.n_tokens, np.int64) for each in found]
        values = [np.frombuffer(each.values, np.float64) for each in found]
        chosen = select(np.concatenate(domains), np.concatenate(tokens), np.concatenate(values), mix)
        ends = np.cumsum([len(each) for each in rows])[:-1]
        for each, of, value, keep, reserve in zip(
            found, rows, values, np.split(chosen.keep, ends), np.split(chosen.reserve, ends), strict=True
        ):
            yield each.source, Chosen(of[~keep], of[reserve], dict(zip(of.tolist(), value.tolist(), strict=True)))
        report = [asdict(each) for each in chosen.report]
        self.store.put(f"{self.job.prefix}{REPORT}", json.dumps(report).encode(), "application/json")
