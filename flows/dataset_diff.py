"""Two datasets compared document by document: what was added, dropped and changed, and why.

Holds a few hundred bytes a document of both; texts are read file by file and kept as hashes.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import xxhash

from flows.dataset_find import Stored
from lake.tables import tables_of

_PLACE = ("id", "place_id", "given_id", "source_uri", "source_etag", "position")
# Reasons for a document that the other dataset has neither kept nor rejected.
NOT_READ = "source_not_read"
CHANGED_SOURCE = "gone_from_source"


@dataclass(frozen=True, slots=True)
class Document:
    """A kept document: where it came from, and a hash of its text (xxh3)."""

    id: str
    place_id: str
    given_id: str | None
    source_uri: str
    position: str
    digest: int


@dataclass(frozen=True, slots=True)
class Missing:
    """A document that the other dataset does not keep, and why. `duplicate_of` names the one that it keeps instead."""

    document: Document
    reason: str
    detail: str = ""
    duplicate_of: str | None = None
    similarity: float | None = None


@dataclass(frozen=True)
class Difference:
    """From dataset `a` to dataset `b`: `added` are those that `a` lacked, with the reason that `a` had to."""

    n_a: int
    n_b: int
    n_same: int
    changed: tuple[tuple[Document, Document], ...]
    dropped: tuple[Missing, ...]
    added: tuple[Missing, ...]

    def summary(self) -> dict[str, Any]:
        return {
            "documents_a": self.n_a,
            "documents_b": self.n_b,
            "same": self.n_same,
            "changed": len(self.changed),
            "dropped": len(self.dropped),
            "added": len(self.added),
            "dropped_by_reason": dict(Counter(one.reason for one in self.dropped).most_common()),
            "added_by_reason": dict(Counter(one.reason for one in self.added).most_common()),
        }


def compare(a: Stored, b: Stored) -> Difference:
    """What became of a's documents in b. Raises StorageError.

    A document is the same one when it comes from the same place of the same object version; else when it has the same
    given id (and text, where an id is given twice), or without one has the same text, or else the same place, in the
    same key; else when its text is the same.
    """
    documents_a, documents_b = list(documents_of(a)), list(documents_of(b))
    pairs, only_a, only_b = match(documents_a, documents_b)
    changed = tuple(pair for pair in pairs if pair[0].digest != pair[1].digest)
    return Difference(
        n_a=len(documents_a),
        n_b=len(documents_b),
        n_same=len(pairs) - len(changed),
        changed=changed,
        dropped=tuple(_explained(only_a, b)),
        added=tuple(_explained(only_b, a)),
    )


def documents_of(stored: Stored) -> Iterator[Document]:
    """Every kept document, shard by shard."""
    for table in tables_of(stored.store, stored.prefix, "shards", (*_PLACE, "text")):
        digests = [xxhash.xxh3_64_intdigest(text.as_buffer()) for text in table["text"]]
        for row, digest in zip(_places(table.drop_columns("text")), digests, strict=True):
            yield Document(row["id"], row["place_id"], row["given_id"], row["source_uri"], row["position"], digest)


def match(
    a: Sequence[Document], b: Sequence[Document]
) -> tuple[list[tuple[Document, Document]], list[Document], list[Document]]:
    """`(pairs, only in a, only in b)`, each in order of a or b. No document is in two pairs."""
    keys: tuple[Callable[[Document], Hashable], ...] = (
        lambda one: one.place_id,
        lambda one: one.given_id and (one.given_id, one.digest),
        lambda one: one.given_id,
        # A line that is put in moves all lines after it.
        lambda one: None if one.given_id else (one.source_uri, one.digest),
        lambda one: None if one.given_id else (one.source_uri, one.position),
        lambda one: one.digest,
    )
    pairs: list[tuple[Document, Document]] = []
    left_a, left_b = list(a), list(b)
    for key in keys:
        if not (left_a and left_b):
            break
        waiting: dict[Hashable, deque[Document]] = defaultdict(deque)
        for one in left_b:
            if (found := key(one)) is not None:
                waiting[found].append(one)
        met: set[int] = set()
        rest = []
        for one in left_a:
            same = waiting.get(key(one))
            if same:
                pairs.append((one, same.popleft()))
                met.add(id(pairs[-1][1]))
            else:
                rest.append(one)
        left_a, left_b = rest, [one for one in left_b if id(one) not in met]
    return pairs, left_a, left_b


def _explained(missing: Sequence[Document], other: Stored) -> Iterator[Missing]:
    """Why `other` does not keep these."""
    if not missing:
        return
    rejects: dict[Hashable, dict[str, Any]] = {}
    columns = (*_PLACE, "reason", "detail", "duplicate_of", "similarity")
    for table in tables_of(other.store, other.prefix, "rejects", columns):
        for row in _places(table):
            for key in _keys(row["place_id"], row["given_id"], row["source_uri"], row["position"]):
                rejects.setdefault(key, row)
    sources = {uri for table in tables_of(other.store, other.prefix, "metrics", ["source_uri"]) for uri in _all(table)}
    for one in missing:
        keys = _keys(one.place_id, one.given_id, one.source_uri, one.position)
        known = [rejects[key] for key in keys if key in rejects]
        if not known:
            yield Missing(one, CHANGED_SOURCE if one.source_uri in sources else NOT_READ)
        else:
            row = known[0]
            yield Missing(one, row["reason"], row["detail"] or "", row.get("duplicate_of"), row.get("similarity"))


def _places(table: pa.Table) -> Iterable[dict[str, Any]]:
    """Rows that all have a `place_id`, and a `given_id` or None: an earlier version called the former `id`."""
    for row in table.to_pylist():
        row["place_id"] = row.get("place_id") or row["id"]
        row["given_id"] = row.get("given_id") or (row["id"] if row["id"] != row["place_id"] else None)
        yield row


def _keys(place_id: str, given_id: str | None, source_uri: str, position: str) -> list[Hashable]:
    return [("place", place_id), ("given", given_id) if given_id else ("at", source_uri, position)]


def _all(table: pa.Table) -> list[str]:
    uris: list[str] = table["source_uri"].unique().to_pylist()
    return uris
