"""Numbers of documents: history first, then parts and chunks in order, and back to source and row."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.numbers import (
    CHUNK_BITS,
    FIRST_FRESH,
    ROW_BITS,
    by_source,
    fresh_source,
    is_fresh,
    numbers_of,
    place_of,
    rows_of,
    source_name,
    sources_of,
)

_PARTS, _CHUNKS, _ROWS = st.integers(0, 2**22 - 1), st.integers(0, 2**CHUNK_BITS - 1), st.integers(0, 2**ROW_BITS - 1)


@given(st.tuples(_PARTS, _CHUNKS, _ROWS), st.tuples(_PARTS, _CHUNKS, _ROWS))
def test_numbers_are_in_the_order_of_arrival(a: tuple[int, int, int], b: tuple[int, int, int]) -> None:
    def number(place: tuple[int, int, int]) -> int:
        return int(numbers_of(fresh_source(*place[:2]), place[2] + 1)[-1]) if place[2] < 1_000 else _number(place)

    assert (number(a) < number(b)) == (a < b)
    assert FIRST_FRESH <= number(a) < 2**63
    assert place_of(number(a)) == (fresh_source(*a[:2]), a[2])


def _number(place: tuple[int, int, int]) -> int:
    return fresh_source(*place[:2]) << ROW_BITS | place[2]


def test_history_comes_first() -> None:
    old = numbers_of(2**38 - 1, 3)
    assert not is_fresh(2**38 - 1)
    assert is_fresh(fresh_source(0, 0))
    assert old.max() < FIRST_FRESH == numbers_of(fresh_source(0, 0), 1)[0]


def test_arrays_go_back_to_source_and_row() -> None:
    numbers = np.concatenate([numbers_of(5, 2), numbers_of(fresh_source(3, 1), 3)])
    assert sources_of(numbers).tolist() == [5, 5, *[fresh_source(3, 1)] * 3]
    assert rows_of(numbers).tolist() == [0, 1, 0, 1, 2]
    assert source_name(fresh_source(3, 1)) == "000003-00001"


@given(st.lists(st.integers(0, 3), max_size=12))
def test_values_are_dealt_out_by_source(sources: list[int]) -> None:
    numbers = np.array([source << ROW_BITS | place for place, source in enumerate(sources)], np.int64)
    values = np.arange(len(sources))
    found = {source: some.tolist() for source, some in by_source(numbers, values)}
    assert found == {
        source: [place for place, each in enumerate(sources) if each == source] for source in sorted(set(sources))
    }
    assert list(found) == sorted(found)
