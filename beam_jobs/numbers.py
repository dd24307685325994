"""Document numbers: one int64 for each document of a job, in order of arrival, history first.

A number is a source and a row of it. Sources are files of a stored index (history), or chunks of the new documents.
Whoever holds a number can say which of two documents came first, and where each lies, without asking anybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.int64]

ROW_BITS, CHUNK_BITS = 24, 16
_ROW_MASK, _CHUNK_MASK = (1 << ROW_BITS) - 1, (1 << CHUNK_BITS) - 1
_FIRST_FRESH_SOURCE = 1 << 38
FIRST_FRESH = _FIRST_FRESH_SOURCE << ROW_BITS  # numbers below it are history's


def fresh_source(part: int, chunk: int) -> int:
    """The source that is one chunk of one part. At most 2**16 chunks a part, 2**22 parts."""
    return _FIRST_FRESH_SOURCE | part << CHUNK_BITS | chunk


def is_fresh(source: int) -> bool:
    return source >= _FIRST_FRESH_SOURCE


def source_name(source: int) -> str:
    """What the files of a fresh source are called: `PART-CHUNK`."""
    place = source & (_FIRST_FRESH_SOURCE - 1)
    return f"{place >> CHUNK_BITS:06d}-{place & _CHUNK_MASK:05d}"


def numbers_of(source: int, n_rows: int) -> Numbers:
    """The numbers of a source's rows: int64 `[n_rows]`."""
    return numbers_at(source, np.arange(n_rows, dtype=np.uint32))


def numbers_at(source: int, rows: NDArray[np.uint32]) -> Numbers:
    """The numbers of some of a source's rows."""
    return (source << ROW_BITS) + rows.astype(np.int64)


def place_of(number: int) -> tuple[int, int]:
    """`(source, row)`."""
    return number >> ROW_BITS, number & _ROW_MASK


def sources_of(numbers: Numbers) -> NDArray[np.int64]:
    return numbers >> ROW_BITS


def rows_of(numbers: Numbers) -> NDArray[np.int64]:
    return numbers & _ROW_MASK


def by_source(numbers: Numbers, values: Numbers) -> Iterator[tuple[int, Numbers]]:
    """`values`, a row for each of `numbers`, dealt out by the numbers' source, sources in order."""
    sources = sources_of(numbers)
    order = np.argsort(sources, kind="stable")
    starts = np.flatnonzero(np.diff(sources[order], prepend=-1))
    for start, end in pairwise([*starts.tolist(), len(order)]):
        yield int(sources[order[start]]), values[order[start:end]]
