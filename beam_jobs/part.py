"""One part of a drop: a few objects read, cleaned and fingerprinted together, chunk by chunk.

A chunk is a table in memory and a file of its own, bounded in size: an object of 5 GB takes no more memory than a
small one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from beam_jobs.clean import Cleaned, clean_batch
from beam_jobs.formats import Extracted, extract
from beam_jobs.neighbours import SKETCH, sketch
from beam_jobs.rules import MEASURES
from beam_jobs.simhash import SPECIFICATION, Fingerprint
from lake.errors import SourceChanged, StorageError, TidemillError
from lake.recipe import PrepareRules
from lake.records import ObjectRef
from lake.store import Store

# Objects as they are stored: packed ones hold several times as much. Small enough for several workers to have some each.
PART_BYTES, PART_OBJECTS = 8_000_000, 256
# A table of 16 MB of text, its Python strings and their hashes take some 100 MB for a moment.
CHUNK_CHARACTERS, CHUNK_ROWS = 16_000_000, 1 << 16
BATCH_ROWS = 2_048
NO_FINGERPRINT = Fingerprint(exact=0, signature=0, shingles=np.zeros(0, np.uint32), n_words=0, n_runs=0)

_SPECIFICATION_KEY = b"tidemill.signature"
INDEX_SPECIFICATION = f"{SPECIFICATION};keys:{SKETCH} smallest shingles"
SCHEMA = pa.schema(
    [
        ("place_id", pa.string()),
        ("given_id", pa.string()),
        ("source_uri", pa.string()),
        ("source_etag", pa.string()),
        ("position", pa.string()),
        ("text", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("lang", pa.string()),
        ("domain", pa.string()),
        ("n_characters", pa.int64()),
        ("n_words", pa.int64()),
        ("n_tokens", pa.int64()),
        ("letters_share", pa.float64()),
        ("repetition", pa.float64()),
        ("perplexity", pa.float64()),
        ("perplexity_bucket", pa.string()),
        ("value", pa.float64()),
        ("redacted", pa.map_(pa.string(), pa.int64())),
        ("n_redacted", pa.int64()),
        ("pii_leaks", pa.int64()),
        *((name, pa.float64()) for name in MEASURES),
        ("exact", pa.uint64()),
        ("signature", pa.uint64()),
        ("keys", pa.list_(pa.uint32())),
        ("shingles", pa.list_(pa.uint32())),
    ],
    metadata={_SPECIFICATION_KEY: INDEX_SPECIFICATION.encode()},
)
# Known of a document only once others are.
_LATER = ("domain", "perplexity", "perplexity_bucket", "value")


class HasOrigin(Protocol):
    """An object version, as far as its rows tell of it."""

    @property
    def uri(self) -> str: ...
    @property
    def etag(self) -> str: ...


class Origin(NamedTuple):
    uri: str
    etag: str


Source = TypeVar("Source", bound=HasOrigin)


class Part(NamedTuple):
    """`number` orders the parts; with a document's chunk and row it orders all documents of the drop.

    A part is objects to read, or one `reserve` key: documents that an earlier drop's quotas left out, read and cleaned
    then.
    """

    number: int
    objects: tuple[ObjectRef, ...]
    reserve: Reserve | None = None


class Reserve(NamedTuple):
    """A file of documents that an earlier dataset left out: the history it belongs to, by place, and its key."""

    history: int
    key: str


def parts_of(objects: Sequence[ObjectRef], reserves: Sequence[Reserve] = ()) -> list[Part]:
    """Cut the objects, in the order of their keys, into parts of bounded size and count; what was left out comes first."""
    parts = [Part(number, (), reserve) for number, reserve in enumerate(reserves)]
    taken: list[ObjectRef] = []
    for ref in sorted(objects, key=lambda ref: (ref.uri, ref.etag)):
        if taken and (len(taken) >= PART_OBJECTS or sum(t.size_bytes for t in taken) + ref.size_bytes > PART_BYTES):
            parts.append(Part(len(parts), tuple(taken)))
            taken = []
        taken.append(ref)
    if taken:
        parts.append(Part(len(parts), tuple(taken)))
    return parts


def read_part(
    stores: Callable[[str], Store], part: Part, rules: PrepareRules, columns: Counter[str] | None = None
) -> Iterator[pa.Table]:
    """Everything in the part's objects, rejected or not, one row each by SCHEMA, in chunks; one at least.

    `stores` opens the store that an object's `bucket` names, `columns` counts the input's fields.
    """
    return (clean_rows(rows, rules) for rows in in_chunks(read_objects(stores, part, rules, columns)))


def read_objects(
    stores: Callable[[str], Store], part: Part, rules: PrepareRules, columns: Counter[str] | None = None
) -> Iterator[tuple[ObjectRef, Extracted]]:
    """Everything in the part's objects, as it was extracted."""
    for ref in part.objects:
        for found in _read_object(stores(ref.bucket), ref, rules, columns):
            yield ref, found


def in_chunks(rows: Iterable[tuple[Source, Extracted]]) -> Iterator[list[tuple[Source, Extracted]]]:
    """Rows in lists of bounded length and text; one at least, empty if there are none."""
    chunk: list[tuple[Source, Extracted]] = []
    n_chunks = n_characters = 0
    for row in rows:
        chunk.append(row)
        n_characters += len(row[1].text)
        if n_characters >= CHUNK_CHARACTERS or len(chunk) >= CHUNK_ROWS:
            yield chunk
            chunk, n_chunks, n_characters = [], n_chunks + 1, 0
    if chunk or not n_chunks:
        yield chunk


def clean_rows(rows: Sequence[tuple[HasOrigin, Extracted]], rules: PrepareRules) -> pa.Table:
    """A chunk's rows after the rules, by SCHEMA. In batches: Arrow holds a row in a third of what Python takes."""
    batches = []
    for start in range(0, len(rows), BATCH_ROWS):
        batch = rows[start : start + BATCH_ROWS]
        found = clean_batch([each for _, each in batch], rules)
        batches.append(batch_of([(origin, each) for (origin, _), each in zip(batch, found, strict=True)]))
    return pa.Table.from_batches(batches, schema=SCHEMA)


def read_reserve(store: Store, key: str, rules: PrepareRules) -> pa.Table:
    """Documents that an earlier dataset left out, judged again: the rules may have become stricter since."""
    columns = ["source_uri", "source_etag", "position", "text", "given_id"]
    rows = zip(*(store.get_table(key, columns)[name].to_pylist() for name in columns), strict=True)
    return clean_rows(
        [(Origin(uri, etag), Extracted(position, text, given_id)) for uri, etag, position, text, given_id in rows],
        rules,
    )


def require_same_index(table: pa.Table, where: str) -> None:
    """Raise TidemillError when signatures were made by another specification: comparing them would be noise."""
    found = (table.schema.metadata or {}).get(_SPECIFICATION_KEY, b"none").decode()
    if found != INDEX_SPECIFICATION:
        raise TidemillError(
            where,
            expected=f"signatures of specification {INDEX_SPECIFICATION}",
            got=found,
            remedy="prepare the model's data again under a new model name, so that its index is rebuilt",
        )


def _read_object(
    store: Store, ref: ObjectRef, rules: PrepareRules, columns: Counter[str] | None
) -> Iterator[Extracted]:
    try:
        with closing(store.open_version(ref)) as stream:
            yield from extract(ref.key, stream, rules, columns)
    except SourceChanged as error:
        yield Extracted("object", reason="source_changed", detail=str(error))
    except StorageError as error:
        # A store that is down fails the job, to be tried again; a single object that may not be read does not.
        if not error.got.startswith(("AccessDenied", "403")):
            raise
        yield Extracted("object", reason="access_denied", detail=error.got)


def batch_of(rows: Sequence[tuple[HasOrigin, Cleaned]]) -> pa.RecordBatch:
    """One row of SCHEMA for each document or dead letter."""
    hashed = [found.fingerprint or NO_FINGERPRINT for _, found in rows]
    is_rejected = np.array([found.reason is not None for _, found in rows], bool)
    columns = {
        "place_id": [place_id(ref, found.position) for ref, found in rows],
        "given_id": [found.given_id for _, found in rows],
        "source_uri": [ref.uri for ref, _ in rows],
        "source_etag": [ref.etag for ref, _ in rows],
        "text": [found.text if found.reason is None else None for _, found in rows],
        "n_characters": [len(found.text) for _, found in rows],
        "redacted": [list(found.redacted.items()) for _, found in rows],
        "exact": pa.array(np.array([each.exact for each in hashed], np.uint64), mask=is_rejected),
        "signature": pa.array(np.array([each.signature for each in hashed], np.uint64), mask=is_rejected),
        "keys": _lists([sketch(each.shingles) for each in hashed]),
        "shingles": _lists([each.shingles for each in hashed]),
        **{name: [found.measures.get(name) for _, found in rows] for name in MEASURES},
        **{name: pa.nulls(len(rows), SCHEMA.field(name).type) for name in _LATER},
    }
    measured = [name for name in SCHEMA.names if name not in columns]
    columns |= {name: [getattr(found, name) for _, found in rows] for name in measured}
    return pa.record_batch([pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names], schema=SCHEMA)


def _lists(values: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.uint32]]]) -> pa.ListArray:
    offsets = np.cumsum([0] + [len(each) for each in values], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, np.concatenate([NO_FINGERPRINT.shingles, *values]))


def place_id(ref: HasOrigin, position: str) -> str:
    """Id of a place in one version of one object: 32 hex digits, unique whatever ids the documents were given."""
    return str(xxhash.xxh3_128_hexdigest(f"{ref.uri}\n{ref.etag}\n{position}".encode()))


def ids_of(table: pa.Table) -> pa.ChunkedArray:
    """What documents are called: as the input calls them, or by their place where it gives no id."""
    return pc.coalesce(table["given_id"], table["place_id"])


def survivors(table: pa.Table) -> pa.Table:
    """Rows that no rule has rejected, in order: the documents that deduplication numbers."""
    return table.filter(pc.is_null(table["reason"]))


def column(table: pa.Table, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """A hash column as uint64 `[n_rows]`."""
    return np.asarray(table[name].to_numpy(), dtype=np.uint64)


def total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Sum counters key by key."""
    summed: Counter[str] = Counter()
    for each in counts:
        summed.update(each)
    return dict(summed)
