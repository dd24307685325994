"""Numbers of documents: back to their part, row and shingles, reading only the parts that are asked for."""

from __future__ import annotations

import pyarrow as pa

from beam_jobs.documents import Documents

TABLES = {
    "h000000": pa.table({"id": ["h0", "h1"], "shingles": pa.array([[1, 2], [3]], pa.list_(pa.uint32()))}),
    "n000000": pa.table({"id": [], "shingles": pa.array([], pa.list_(pa.uint32()))}),
    # In chunks and cut out of a longer table, as filters leave it.
    "n000001": pa.concat_tables(
        [pa.table({"id": [f"n{n}"], "shingles": pa.array([[n, n + 1]], pa.list_(pa.uint32()))}) for n in range(5)]
    ).slice(1, 3),
}


def test_every_number_is_a_row_of_its_part() -> None:
    loaded: list[str] = []

    def load(source: str) -> pa.Table:
        loaded.append(source)
        return TABLES[source]

    documents = Documents([(source, len(table)) for source, table in TABLES.items()], load)
    assert loaded == []
    assert [documents.place(n) for n in range(5)] == [
        ("h000000", 0),
        ("h000000", 1),
        ("n000001", 0),
        ("n000001", 1),
        ("n000001", 2),
    ]
    assert documents.identity(3) == "n2"
    assert documents.shingles(4).tolist() == [3, 4]
    assert loaded == ["n000001"]
    assert [documents.identity(n) for n in range(5)] == ["h0", "h1", "n1", "n2", "n3"]
    assert [documents.shingles(n).tolist() for n in range(5)] == [[1, 2], [3], [1, 2], [2, 3], [3, 4]]
    assert loaded == ["n000001", "h000000"]
