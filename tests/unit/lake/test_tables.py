from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from lake.errors import StorageError
from lake.folder import Folder
from lake.tables import read_present, table_keys, tables_of


def test_columns_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    store.put_table("d/shards/b.parquet", pa.table({"id": ["b"], "text": ["x"]}))
    store.put_table("d/shards/a.parquet", pa.table({"id": ["a"]}))
    store.put("d/shards/notes.txt", b"")
    assert table_keys(store, "d/", "shards") == ["d/shards/a.parquet", "d/shards/b.parquet"]
    found = [table.to_pydict() for table in tables_of(store, "d/", "shards", ["text", "id", "lang"])]
    assert found == [{"id": ["a"]}, {"text": ["x"], "id": ["b"]}]
    assert read_present(store, "d/shards/b.parquet").column_names == ["id", "text"]
    assert len(read_present(store, "d/shards/b.parquet", ["lang"]).column_names) == 0


def test_what_is_no_parquet_is_named(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    store.put("d/shards/a.parquet", b"PAR1 but no more")
    with pytest.raises(StorageError, match=r"a.parquet: expected a Parquet file"):
        read_present(store, "d/shards/a.parquet")
