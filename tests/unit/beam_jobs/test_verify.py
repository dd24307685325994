"""Candidates verified: by true similarity, reading each source about once, and a few at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from beam_jobs.numbers import FIRST_FRESH, fresh_source, numbers_of
from beam_jobs.verify import HELD_SOURCES, Documents, Identity, verify

NONE = np.zeros((0, 2), np.int64)


def source(name: str, *shingles: list[int]) -> pa.Table:
    ids = [f"{name}{row}" for row in range(len(shingles))]
    lists = pa.array([sorted(each) for each in shingles], pa.list_(pa.uint32()))
    return pa.table({"id": ids, "place_id": [f"place {each}" for each in ids], "shingles": lists})


OLD = source("h", [1, 2, 3, 4], [9])
# In chunks and cut out of a longer table, as filters leave it.
NEW = pa.concat_tables([source("x", [7]), source("n", [1, 2, 3, 4]), source("m", [1, 2, 3, 5]), source("y", [7])])
NEW = NEW.slice(1, 2)
TABLES = {0: OLD, fresh_source(0, 0): source("e"), fresh_source(1, 0): NEW}


def test_similar_pairs_stay_and_name_the_earlier_one() -> None:
    loaded: list[int] = []
    documents = Documents(lambda number: loaded.append(number) or TABLES[number])  # type: ignore[func-returns-value]
    n0, m0 = numbers_of(fresh_source(1, 0), 2).tolist()
    pairs = np.array([[0, n0], [0, m0], [n0, m0], [1, m0], [0, n0]], np.int64)

    found = verify(pairs, NONE, documents, 0.8)
    assert found.later.tolist() == [n0]
    assert found.earlier.tolist() == [0]
    assert found.similarity.tolist() == [1.0]
    assert found.identity == [Identity("h0", "place h0")]
    assert sorted(loaded) == [0, fresh_source(1, 0)]
    assert verify(pairs, NONE, documents, 0.6).similarity.tolist() == [1.0, 0.6, 0.6]


def test_copies_are_taken_as_they_are_and_their_candidates_left_out() -> None:
    documents = Documents(TABLES.__getitem__)
    n0, m0 = numbers_of(fresh_source(1, 0), 2).tolist()
    found = verify(np.array([[0, m0], [1, n0]]), np.array([[1, m0]]), documents, 0.0)
    assert found.later.tolist() == [m0, n0]
    assert found.is_copy.tolist() == [True, False]
    assert found.similarity.tolist() == [1.0, 0.0]
    assert [each.id for each in found.identity] == ["h1", "h1"]


def test_nothing_to_verify() -> None:
    found = verify(NONE, NONE, Documents(TABLES.__getitem__), 0.8)
    assert len(found.later) == len(found.identity) == 0


def test_only_a_few_sources_are_held() -> None:
    loaded: list[int] = []

    def load(number: int) -> pa.Table:
        loaded.append(number)
        return OLD

    documents = Documents(load)
    for number in (*range(HELD_SOURCES + 1), 0, HELD_SOURCES):
        documents.shingles(int(numbers_of(number, 1)[0]))
    assert loaded == [*range(HELD_SOURCES + 1), 0]
    assert FIRST_FRESH > HELD_SOURCES
