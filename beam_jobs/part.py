"""One part of a drop: a few objects read, cleaned and fingerprinted together, kept in one Parquet file of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from beam_jobs.clean import Cleaned, clean
from beam_jobs.extract import Extracted, extract
from beam_jobs.simhash import SPECIFICATION, fingerprint
from lake.bucket import Bucket
from lake.errors import SourceChanged, StorageError, TidemillError
from lake.recipe import PrepareRules
from lake.records import ObjectRef

PART_BYTES, PART_OBJECTS = 32_000_000, 256

_SPECIFICATION_KEY = b"tidemill.signature"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
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
        ("shingles", pa.list_(pa.uint64())),
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
    rows = [_row(ref, clean(found, rules)) for ref in part.objects for found in _read_object(bucket, ref, rules)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


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
        yield from extract(ref.key, bucket.open_version(ref), rules)
    except SourceChanged as error:
        yield Extracted("object", reason="source_changed", detail=str(error))
    except StorageError as error:
        # A store that is down fails the job, to be tried again; a single object that may not be read does not.
        if not error.got.startswith(("AccessDenied", "403")):
            raise
        yield Extracted("object", reason="access_denied", detail=error.got)


def _row(ref: ObjectRef, found: Cleaned) -> dict[str, Any]:
    place = f"{ref.uri}\n{ref.etag}\n{found.position}"
    row: dict[str, Any] = {
        "id": found.given_id or xxhash.xxh3_128_hexdigest(place.encode()),
        "source_uri": ref.uri,
        "source_etag": ref.etag,
        "position": found.position,
        "text": found.text if found.reason is None else None,
        "reason": found.reason,
        "detail": found.detail,
        "lang": found.lang,
        "n_characters": len(found.text),
        "n_words": found.n_words,
        "letters_share": found.letters_share,
        "repetition": found.repetition,
        "n_redacted": found.n_redacted,
        "pii_leaks": found.pii_leaks,
    }
    if found.reason is None:
        exact, signature, shingles = fingerprint(found.text)
        row |= {"exact": int(exact), "signature": int(signature), "shingles": shingles}
    return row


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
