"""What the steps of the pipeline share: the job, its open stores, and sets of hashes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from beam_jobs.memory import release
from beam_jobs.mix.classifier import Classifier
from beam_jobs.numbers import is_fresh, source_name
from beam_jobs.part import Part
from beam_jobs.past import IndexFile, Past
from beam_jobs.verify import Documents
from lake.recipe import PrepareRules
from lake.redact import KINDS, redact
from lake.store import Address
from lake.tombstones import Tombstones

# How many ways equal hashes are brought together side by side: they are dealt out by their remainder.
PARTITIONS = 16
SHINGLES = ["id", "place_id", "shingles"]


@dataclass(frozen=True)
class Job:
    """What the workers need; small and picklable.

    `sources` are the stores of objects by the name that a ref gives, `history` the files of stored indexes,
    `paragraphs` those of paragraphs that were kept before. `perplexity` and `frequencies` are keys below `prefix`, of
    what was learned from the history; None where the recipe does not ask for it, or there is nothing to learn from.
    """

    store: Address
    prefix: str
    rules: PrepareRules
    sources: Mapping[str, Address]
    history: tuple[IndexFile, ...]
    reserves: tuple[Past, ...]
    tombstones: Tombstones
    paragraphs: tuple[tuple[Address, str], ...] = ()
    perplexity: str | None = None
    frequencies: str | None = None
    classifier: Classifier | None = None

    def work_key(self, kind: str, source: int) -> str:
        return f"{self.prefix}work/{kind}-{source_name(source)}.parquet"


class OnStore(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """A DoFn with the job's stores open."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def setup(self) -> None:
        release()  # the step before has ended
        self.store = self.job.store.open()
        self.sources = cache(lambda name: self.job.sources[name].open())
        self.documents = Documents(self._shingles)

    def count_columns(self, part: Part, columns: Counter[str]) -> None:
        """Keep the counts of the input's fields until the end. A table without a header has data for names."""
        named: Counter[str] = Counter()
        for name, n in columns.items():
            named[redact(name, KINDS)[0]] += n
        self.store.put(f"{self.job.prefix}work/columns-{part.number:06d}.json", json.dumps(named).encode())

    def _shingles(self, source: int) -> pa.Table:
        if is_fresh(source):
            return self.store.get_table(self.job.work_key("shingles", source))
        file = self.job.history[source]
        return file.address.open().get_table(file.shingles, SHINGLES)


class OfKept(OnStore):
    """A DoFn over `(source, {chunk, dropped, chosen})`: what is left of a source so far."""

    def kept(
        self, item: tuple[int, dict[str, Iterable[Any]]], columns: Sequence[str] | None = None
    ) -> tuple[pa.Table, NDArray[np.int64]]:
        """The source's table, and the rows that no rule has rejected, that duplicate nothing and are within quotas.

        With `columns`, the table is of these rows and columns alone.
        """
        source, joined = item
        table = self.store.get_table(self.job.work_key("rows", source), columns and ["reason", *columns])
        rows = np.delete(alive(table), list(next(iter(joined["dropped"]), {})))
        for chosen in joined.get("chosen", ()):
            rows = np.setdiff1d(rows, chosen.over_quota)
        return (table.take(rows) if columns else table), rows


def alive(table: pa.Table) -> NDArray[np.int64]:
    """Rows that no rule has rejected: those that deduplication numbers."""
    return np.flatnonzero(pc.is_null(table["reason"]).to_numpy(zero_copy_only=False))


def among(values: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each value is in a sorted array."""
    if not len(wanted):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
    return np.asarray(wanted[places] == values, bool)
