"""The documents that deduplication numbers, history first: where each is, what it is called, what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from beam_jobs.simhash import Shingles


class Documents:
    """Document number → its part, id and shingles. Reads only the parts that candidates lie in, each once."""

    def __init__(self, sizes: Sequence[tuple[str, int]], load: Callable[[str], pa.Table]) -> None:
        """`sizes` are the sources in order, each with its number of documents; `load` gives their `id` and `shingles`."""
        self._load = load
        self._sources = [source for source, _ in sizes]
        self._starts = np.cumsum([0] + [n for _, n in sizes])
        self._loaded: dict[str, _Part] = {}

    def place(self, number: int) -> tuple[str, int]:
        """`(source, row among the source's survivors)`."""
        index = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._sources[index], number - int(self._starts[index])

    def identity(self, number: int) -> str:
        source, row = self.place(number)
        return self._part(source).identity(row)

    def shingles(self, number: int) -> Shingles:
        source, row = self.place(number)
        return self._part(source).shingles(row)

    def _part(self, source: str) -> _Part:
        if source not in self._loaded:
            self._loaded[source] = _Part(self._load(source))
        return self._loaded[source]


class _Part:
    """A part's documents. Shingles are cut out of one flat array: Arrow's own way to a row takes 20 times as long."""

    def __init__(self, table: pa.Table) -> None:
        lists = table["shingles"].combine_chunks()
        self._ids = table["id"]
        self._ends = lists.offsets.to_numpy()
        self._values = lists.values.to_numpy()

    def identity(self, row: int) -> str:
        return str(self._ids[row].as_py())

    def shingles(self, row: int) -> Shingles:
        found: Shingles = self._values[self._ends[row] : self._ends[row + 1]]
        return found
