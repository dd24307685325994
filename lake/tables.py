"""A dataset's tables, file by file, with the columns that are there: datasets of earlier versions have fewer."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from lake.errors import StorageError
from lake.store import Store


def table_keys(store: Store, prefix: str, folder: str) -> list[str]:
    """Keys of the Parquet files of a dataset's `shards`, `rejects`, `metrics`, `signatures` or `reserve`, in order."""
    return [ref.key for ref in store.list(f"{prefix}{folder}/") if ref.key.endswith(".parquet")]


def read_present(store: Store, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One file with those of the columns that it has (None: all). Raises StorageError when it is no Parquet file."""
    try:
        file = pq.ParquetFile(io.BytesIO(store.get(key)))
        names = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        return file.read(columns=names, use_threads=False)
    except pa.ArrowException as error:
        raise StorageError(
            store.uri(key),
            expected="a Parquet file",
            got=str(error).splitlines()[0],
            remedy="delete the dataset's manifest and prepare it again",
        ) from error


def tables_of(store: Store, prefix: str, folder: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The files of a folder one after the other, each with those of the columns that it has."""
    for key in table_keys(store, prefix, folder):
        yield read_present(store, key, columns)
