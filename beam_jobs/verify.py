"""Verify candidates: the true Jaccard similarity of two documents' shingles, and the ids of the earlier ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.neighbours import Pairs, unique_pairs
from beam_jobs.numbers import Numbers, place_of
from beam_jobs.simhash import Shingles, jaccard

# Sources whose shingles are held at a time: candidates come sorted by source, so that each is loaded about once.
HELD_SOURCES = 4


class Identity(NamedTuple):
    """What a document is called, and its place, which is its own alone."""

    id: str
    place_id: str


class Verified(NamedTuple):
    """Pairs that are alike: parallel, `[n]`. Of exact copies `earlier` is the first one, and the similarity 1.

    `identity` is that of the earlier ones.
    """

    later: Numbers
    earlier: Numbers
    similarity: NDArray[np.float64]
    is_copy: NDArray[np.bool_]
    identity: list[Identity]


class Documents:
    """Document number → shingles and id, read source by source; the last few sources are held."""

    def __init__(self, load: Callable[[int], pa.Table]) -> None:
        """`load` gives a source's `id`, `place_id` and `shingles`, a row for each of its documents."""
        self._load = load
        self._held: OrderedDict[int, _Source] = OrderedDict()

    def identity(self, number: int) -> Identity:
        source, row = place_of(number)
        held = self._source(source)
        return Identity(held.ids[row].as_py(), held.place_ids[row].as_py())

    def shingles(self, number: int) -> Shingles:
        source, row = place_of(number)
        held = self._source(source)
        found: Shingles = held.values[held.ends[row] : held.ends[row + 1]]
        return found

    def similarity(self, a: int, b: int, at_least: float = 0.0) -> float:
        """Jaccard similarity; 0 for what cannot be `at_least` as alike, as one has so many more shingles."""
        ours, theirs = self.shingles(a), self.shingles(b)
        if min(len(ours), len(theirs)) < at_least * max(len(ours), len(theirs)):
            return 0.0
        return jaccard(ours, theirs)

    def _source(self, source: int) -> _Source:
        if source not in self._held:
            self._held[source] = _Source.of(self._load(source))
        self._held.move_to_end(source)
        if len(self._held) > HELD_SOURCES:
            self._held.popitem(last=False)
        return self._held[source]


class _Source(NamedTuple):
    """Shingles are cut out of one flat array: Arrow's own way to a row takes 20 times as long."""

    ids: pa.ChunkedArray
    place_ids: pa.ChunkedArray
    ends: NDArray[np.int32]
    values: Shingles

    @classmethod
    def of(cls, table: pa.Table) -> _Source:
        lists = table["shingles"].combine_chunks()
        if isinstance(lists, pa.ChunkedArray):  # of a table without rows
            lists = pa.array([], table.schema.field("shingles").type)
        return cls(table["id"], table["place_id"], lists.offsets.to_numpy(), lists.values.to_numpy())


def verify(pairs: Pairs, copies: Pairs, documents: Documents, min_jaccard: float) -> Verified:
    """Of candidate pairs `(earlier, later)`, those at least `min_jaccard` alike; and the copies, which need no look.

    A copy's own candidates are left out: it goes the way of its first one.
    """
    copies = copies[np.argsort(copies[:, 0], kind="stable")]
    pairs = unique_pairs(pairs[~np.isin(pairs[:, 1], copies[:, 1])])  # by source of the earlier one, too
    similarity = np.fromiter(
        (documents.similarity(b, a, min_jaccard) for a, b in pairs.tolist()), np.float64, len(pairs)
    )
    alike = similarity >= min_jaccard
    earlier = np.concatenate([copies[:, 0], pairs[alike, 0]])
    return Verified(
        later=np.concatenate([copies[:, 1], pairs[alike, 1]]),
        earlier=earlier,
        similarity=np.concatenate([np.ones(len(copies)), similarity[alike]]),
        is_copy=np.arange(len(earlier)) < len(copies),
        identity=[documents.identity(number) for number in earlier.tolist()],
    )
