"""One part of a drop: a few objects read, cleaned and fingerprinted together, kept in one Parquet file of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from beam_jobs.clean import Cleaned, clean
from beam_jobs.extract import Extracted, extract
from beam_jobs.simhash import SPECIFICATION, Fingerprint
from lake.bucket import Bucket
from lake.errors import SourceChanged, StorageError, TidemillError
from lake.recipe import PrepareRules
from lake.records import ObjectRef

PART_BYTES, PART_OBJECTS = 32_000_000, 256

BATCH_ROWS = 2_048
NO_FINGERPRINT = Fingerprint(exact=0, signature=0, shingles=np.zeros(0, np.uint32), n_words=0, n_runs=0)

_SPECIFICATION_KEY = b"tidemill.signature"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("given_id", pa.string()),
        ("source_uri", pa.string()),
        ("source_etag", pa.string()),
        ("position", pa.string()),
        ("text", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("lang", pa.string()),
        ("n_characters", pa.int64()),
        ("n_words", pa.int64()),
        ("letters_share", pa.float64()),
        ("repetition", pa.float64()),
        ("n_redacted", pa.int64()),
        ("pii_leaks", pa.int64()),
        ("exact", pa.uint64()),
        ("signature", pa.uint64()),
        ("shingles", pa.list_(pa.uint32())),
    ],
    metadata={_SPECIFICATION_KEY: SPECIFICATION.encode()},
)


class Part(NamedTuple):
    """`number` orders the parts; together with a row's place in its part it orders all documents of the drop."""

    number: int
    objects: tuple[ObjectRef, ...]


def parts_of(objects: Sequence[ObjectRef]) -> list[Part]:
    """Cut the objects, in the order of their keys, into parts of bounded size and count."""
    parts: list[Part] = []
    taken: list[ObjectRef] = []
    for ref in sorted(objects, key=lambda ref: (ref.key, ref.etag)):
        if taken and (len(taken) >= PART_OBJECTS or sum(t.size_bytes for t in taken) + ref.size_bytes > PART_BYTES):
            parts.append(Part(len(parts), tuple(taken)))
            taken = []
        taken.append(ref)
    if taken:
        parts.append(Part(len(parts), tuple(taken)))
    return parts


def read_part(bucket: Bucket, part: Part, rules: PrepareRules) -> pa.Table:
    """Everything in the part's objects, rejected or not, one row each, by SCHEMA."""
    batches, waiting = [], []
    for ref in part.objects:
        for found in _read_object(bucket, ref, rules):
            waiting.append((ref, clean(found, rules)))
            if len(waiting) == BATCH_ROWS:  # Arrow holds a row in a third of the memory that Python objects take
                batches.append(batch_of(waiting))
                waiting.clear()
    return pa.Table.from_batches([*batches, batch_of(waiting)], schema=SCHEMA)


def require_same_index(table: pa.Table, where: str) -> None:
    """Raise TidemillError when signatures were made by another specification: comparing them would be noise."""
    found = (table.schema.metadata or {}).get(_SPECIFICATION_KEY, b"none").decode()
    if found != SPECIFICATION:
        raise TidemillError(
            where,
            expected=f"signatures of specification {SPECIFICATION}",
            got=found,
            remedy="prepare the model's data again under a new model name, so that its index is rebuilt",
        )


def _read_object(bucket: Bucket, ref: ObjectRef, rules: PrepareRules) -> Iterator[Extracted]:
    try:
        with closing(bucket.open_version(ref)) as stream:
            yield from extract(ref.key, stream, rules)
    except SourceChanged as error:
        yield Extracted("object", reason="source_changed", detail=str(error))
    except StorageError as error:
        # A store that is down fails the job, to be tried again; a single object that may not be read does not.
        if not error.got.startswith(("AccessDenied", "403")):
            raise
        yield Extracted("object", reason="access_denied", detail=error.got)


def batch_of(rows: Sequence[tuple[ObjectRef, Cleaned]]) -> pa.RecordBatch:
    """One row of SCHEMA for each document or dead letter."""
    hashed = [found.fingerprint or NO_FINGERPRINT for _, found in rows]
    is_rejected = np.array([found.reason is not None for _, found in rows], bool)
    shingles = [each.shingles for each in hashed]
    offsets = np.cumsum([0] + [len(each) for each in shingles], dtype=np.int32)
    columns = {
        "id": [document_id(ref, found.position) for ref, found in rows],
        "given_id": [found.given_id for _, found in rows],
        "source_uri": [ref.uri for ref, _ in rows],
        "source_etag": [ref.etag for ref, _ in rows],
        "text": [found.text if found.reason is None else None for _, found in rows],
        "n_characters": [len(found.text) for _, found in rows],
        "exact": pa.array(np.array([each.exact for each in hashed], np.uint64), mask=is_rejected),
        "signature": pa.array(np.array([each.signature for each in hashed], np.uint64), mask=is_rejected),
        "shingles": pa.ListArray.from_arrays(offsets, np.concatenate([NO_FINGERPRINT.shingles, *shingles])),
    }
    measured = [name for name in SCHEMA.names if name not in columns]
    columns |= {name: [getattr(found, name) for _, found in rows] for name in measured}
    return pa.record_batch([pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names], schema=SCHEMA)


def document_id(ref: ObjectRef, position: str) -> str:
    """Id of a place in one version of one object: 32 hex digits, unique whatever ids the documents were given."""
    return str(xxhash.xxh3_128_hexdigest(f"{ref.uri}\n{ref.etag}\n{position}".encode()))


def survivors(table: pa.Table) -> pa.Table:
    """Rows that no rule has rejected, in order: the documents that deduplication numbers."""
    return table.filter(pa.compute.is_null(table["reason"]))


def column(table: pa.Table, name: str) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A hash column as uint64 `[n_rows]`."""
    return np.asarray(table[name].to_numpy(), dtype=np.uint64)


def total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Sum counters key by key."""
    summed: dict[str, int] = {}
    for each in counts:
        for name, n in each.items():
            summed[name] = summed.get(name, 0) + n
    return summed
