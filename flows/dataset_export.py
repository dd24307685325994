"""Write a dataset for other tools: JSON Lines, Parquet, or the folder that Hugging Face `datasets` loads.

File by file, so that memory holds one shard, whatever the dataset's size.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from flows.dataset_find import Stored
from lake.errors import TidemillError
from lake.records import SPLITS, Split
from lake.tables import read_present, table_keys

Format = Literal["jsonl", "jsonl.gz", "parquet", "datasets"]

_ROWS = 1_000  # in a batch
_STREAM = "data-00000-of-00001.arrow"


def export(stored: Stored, kind: Format, folder: Path, columns: Sequence[str] = ()) -> dict[Split, int]:
    """Write all splits below `folder`, which must not be there or be empty. Returns documents by split.

    `columns` are those to write, in their order; all when empty.

    A folder that was not completed is taken away again. Raises TidemillError, and StorageError when a shard cannot be
    read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TidemillError(
            str(folder),
            expected="a new or an empty folder",
            got="one that holds something",
            remedy="name another --out",
        )
    shards = {split: _shards(stored, split) for split in SPLITS}
    if not any(shards.values()):
        raise TidemillError(
            f"dataset {stored.name}", expected="kept documents", got="none", remedy="'tidemill data show' says why"
        )
    schema = _schema(stored, next(key for keys in shards.values() for key in keys), columns)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        write, counts = _WRITERS[kind], dict.fromkeys(SPLITS, 0)
        for split, keys in shards.items():
            if keys or kind == "datasets":  # which opens empty splits, as readers of the other formats do not
                counts[split] = write(_tables(stored, keys, schema), schema, unfinished / split)
        if kind == "datasets":
            _describe_splits(stored, unfinished)
        if folder.exists():
            folder.rmdir()
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return counts


def _shards(stored: Stored, split: Split) -> list[str]:
    keys = table_keys(stored.store, stored.prefix, "shards")
    return [key for key in keys if key.rsplit("/", 1)[-1].startswith(f"{split}-")]


def _schema(stored: Stored, key: str, columns: Sequence[str]) -> pa.Schema:
    """The columns of a shard, or those of them that are wanted. All shards have the same: one job wrote them."""
    schema = read_present(stored.store, key).schema.remove_metadata()
    if unknown := [name for name in columns if name not in schema.names]:
        raise TidemillError(
            f"columns {', '.join(unknown)}",
            expected=f"some of {', '.join(schema.names)}",
            got=", ".join(columns),
            remedy="leave --columns out for all",
        )
    return pa.schema([schema.field(name) for name in columns]) if columns else schema


def _tables(stored: Stored, keys: list[str], schema: pa.Schema) -> Iterator[pa.Table]:
    for key in keys:
        table = read_present(stored.store, key, schema.names)
        if set(table.column_names) != set(schema.names):
            raise TidemillError(
                stored.store.uri(key),
                expected=f"the columns {', '.join(schema.names)}",
                got=", ".join(table.column_names),
                remedy="prepare the drop again",
            )
        yield table.select(schema.names).cast(schema)


def _jsonl(tables: Iterator[pa.Table], schema: pa.Schema, path: Path) -> int:
    with path.with_suffix(".jsonl").open("w", encoding="utf-8") as file:
        return _lines(tables, schema, file)


def _jsonl_gz(tables: Iterator[pa.Table], schema: pa.Schema, path: Path) -> int:
    with gzip.open(path.with_suffix(".jsonl.gz"), "wt", encoding="utf-8", compresslevel=6) as file:
        return _lines(tables, schema, file)


def _lines(tables: Iterator[pa.Table], schema: pa.Schema, file: IO[str]) -> int:
    n, numbers = 0, [field.name for field in schema if pa.types.is_floating(field.type)]
    for table in tables:
        for batch in table.to_batches(max_chunksize=_ROWS):
            for row in batch.to_pylist():
                for name in numbers:
                    if row[name] is not None and not math.isfinite(row[name]):  # JSON knows none of these
                        row[name] = None
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            n += len(batch)
    return n


def _parquet(tables: Iterator[pa.Table], schema: pa.Schema, path: Path) -> int:
    n = 0
    with pq.ParquetWriter(path.with_suffix(".parquet"), schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            n += len(table)
    return n


def _arrow(tables: Iterator[pa.Table], schema: pa.Schema, path: Path) -> int:
    path.mkdir()
    n = 0
    with pa.OSFile(str(path / _STREAM), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for table in tables:
            stream.write_table(table, max_chunksize=_ROWS)
            n += len(table)
    return n


def _describe_splits(stored: Stored, folder: Path) -> None:
    """The JSON files that `DatasetDict.save_to_disk` leaves beside the Arrow streams."""
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(SPLITS)}))
    # Without `features`, they are those of the stream's schema.
    info = {"description": f"dataset {stored.name} of {stored.dataset.model}", "citation": "", "license": ""}
    for split in SPLITS:
        state = {
            "_data_files": [{"filename": _STREAM}],
            # By it, results of `map` are cached: no two datasets may share one.
            "_fingerprint": xxhash.xxh3_64_hexdigest(f"{stored.dataset.model}/{stored.name}/{split}".encode()),
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split,
        }
        (folder / split / "state.json").write_text(json.dumps(state, indent=2))
        (folder / split / "dataset_info.json").write_text(json.dumps(info, indent=2))


_WRITERS: dict[Format, Callable[[Iterator[pa.Table], pa.Schema, Path], int]] = {
    "jsonl": _jsonl,
    "jsonl.gz": _jsonl_gz,
    "parquet": _parquet,
    "datasets": _arrow,
}
