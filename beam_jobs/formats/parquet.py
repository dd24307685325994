"""Parquet: a batch of rows at a time, and of the columns only those that are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from beam_jobs.formats.columns import count_types
from beam_jobs.formats.content import Content
from beam_jobs.formats.extracted import Extracted, Unreadable
from beam_jobs.formats.source import Source

_BATCH_ROWS, _BATCH_BYTES = 1_024, 32_000_000


def read_parquet(content: Content, source: Source) -> Iterator[Extracted]:
    number = 0
    with content.spooled() as file:
        try:
            for batch in _batches(file, source):
                for row in range(batch.num_rows):
                    number += 1
                    yield _document(batch, row, f"row:{number}", source)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise Unreadable("bad_parquet", error, f"row:{number + 1}" if number else "object") from error


def _batches(file: IO[bytes], source: Source) -> Iterator[pa.RecordBatch]:
    opened = pq.ParquetFile(file)
    metadata, names = opened.metadata, opened.schema_arrow.names
    missing = source.columns.require(names)
    if missing:
        raise Unreadable("no_text_field", missing)
    if source.seen_columns is not None:
        typed = [(field.name, type_name(field.type)) for field in opened.schema_arrow]
        count_types(source.seen_columns, iter(typed), metadata.num_rows)
    wanted = source.columns.wanted(names)
    n_bytes, repeated = _sizes(metadata, wanted)
    if repeated:  # a value that stands once in the file may stand in a million rows: it is unfolded a row at a time
        file.seek(0)
        opened = pq.ParquetFile(file, read_dictionary=repeated)
    batch_rows = max(1, min(_BATCH_ROWS, int(_BATCH_BYTES * metadata.num_rows / max(1, n_bytes))))
    yield from opened.iter_batches(batch_size=batch_rows, columns=wanted)


def _sizes(metadata: pq.FileMetaData, wanted: list[str]) -> tuple[int, list[str]]:
    """Bytes of the wanted columns when unpacked, and those of them that are plain strings with a dictionary."""
    n_bytes, repeated = 0, set[str]()
    for group in range(metadata.num_row_groups):
        for at in range(metadata.num_columns):
            column = metadata.row_group(group).column(at)
            if column.path_in_schema.split(".", 1)[0] in wanted:
                n_bytes += max(0, column.total_uncompressed_size)
                is_plain = column.path_in_schema in wanted and column.physical_type == "BYTE_ARRAY"
                if is_plain and any("DICTIONARY" in encoding for encoding in column.encodings):
                    repeated.add(column.path_in_schema)
    return n_bytes, sorted(repeated)


def _document(batch: pa.RecordBatch, row: int, position: str, source: Source) -> Extracted:
    try:
        record = {name: batch.column(at)[row].as_py() for at, name in enumerate(batch.schema.names)}
    except UnicodeDecodeError as error:  # a string column of which nobody has checked that it holds strings
        return Extracted(position, reason="bad_encoding", detail=f"not UTF-8 at byte {error.start}")
    found = source.columns.document(record, position)
    source.budget.spend(len(found.text))  # as a dictionary unfolds without end
    return found


def type_name(kind: pa.DataType) -> str:
    """JSON's word for an Arrow type where there is one, else Arrow's."""
    if pa.types.is_dictionary(kind):
        return type_name(kind.value_type)
    for name, tests in _TYPES.items():
        if any(test(kind) for test in tests):
            return name
    return str(kind).split("[", 1)[0].split("(", 1)[0]


_TYPES = {
    "string": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    "integer": (pa.types.is_integer,),
    "number": (pa.types.is_floating, pa.types.is_decimal),
    "boolean": (pa.types.is_boolean,),
    "list": (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view),
    "object": (pa.types.is_struct, pa.types.is_map),
    "null": (pa.types.is_null,),
    "binary": (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary),
}
