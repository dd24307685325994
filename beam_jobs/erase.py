"""Erase documents: find their rows in a dataset, write it again without them, keep them out of what is prepared.

One file of the dataset at a time, as it was written: memory does not grow with the dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.mix.distinctiveness import document_frequencies
from beam_jobs.mix.terms import terms_of
from beam_jobs.write import FOLDERS, sums
from lake.records import SPLITS, Dataset
from lake.store import Store
from lake.tombstones import Tombstones

ERASED = "erased"  # the reason of a reject


@dataclass(frozen=True)
class Place:
    """Where a document came from. One that was dropped as a duplicate names the kept one: its own text is not here."""

    id: str
    source_uri: str
    position: str
    duplicate_of: str | None = None


@dataclass
class Found:
    """Rows of a dataset. `kept` maps an id to the exact hash of its words; `original_of` a duplicate to what was kept.

    `given` are those of the wanted given ids that were there, `sources` the objects that the rows were read from.
    """

    kept: dict[str, int] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    original_of: dict[str, str] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)

    @property
    def ids(self) -> set[str]:
        return {*self.kept, *self.rejected}


def refuse(table: pa.Table, tombstones: Tombstones) -> pa.Table:
    """A part (by `part.SCHEMA`) in which what has been erased before is a reject without text, detail and given id."""
    if not tombstones:
        return table
    erased = _among(table["place_id"], tombstones.documents)
    erased = pc.or_(erased, pc.fill_null(pc.is_in(table["exact"], _texts(tombstones.texts)), False))
    nothing = pa.scalar(None, pa.string())
    for name, value in (("reason", pa.scalar(ERASED)), *((name, nothing) for name in ("detail", "given_id", "text"))):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pc.if_else(erased, value, table[name]))
    return table


def find(
    store: Store,
    dataset: Dataset,
    *,
    ids: Collection[str] = (),
    given_ids: Collection[str] = (),
    uris: Collection[str] = (),
    texts: Collection[int] = (),
) -> Found:
    """Rows with one of these document ids, given ids (or parts of such), source objects or exact hashes of words.

    Rows that are rejects because they were erased before are none of them.
    """
    found = Found()
    by_id = dict(_ids_given(store, dataset, given_ids)) if given_ids else {}
    found.given.update(by_id.values())
    wanted = {*ids, *by_id}
    if wanted or uris:
        for table in _tables(store, dataset, "metrics", ["place_id", "source_uri", "reason"]):
            known = pc.fill_null(pc.not_equal(table["reason"].cast(pa.string()), ERASED), True)
            hit = pc.and_(known, pc.or_(_among(table["place_id"], wanted), _among(table["source_uri"], uris)))
            rows = table.filter(hit)
            found.sources.update(rows["source_uri"].to_pylist())
            found.rejected.update(rows.filter(pc.is_valid(rows["reason"]))["place_id"].to_pylist())
            found.kept.update(dict.fromkeys(rows.filter(pc.is_null(rows["reason"]))["place_id"].to_pylist(), 0))
    if found.ids or texts:
        for folder in ("signatures", "reserve"):  # what quotas left out is held as well
            for table in _tables(store, dataset, folder, ["place_id", "exact"]):
                of_these = _among(table["place_id"], found.ids)
                rows = table.filter(pc.or_(of_these, pc.is_in(table["exact"], _texts(texts))))
                found.kept.update(zip(rows["place_id"].to_pylist(), rows["exact"].to_pylist(), strict=True))
    if found.rejected:
        copies = _copies(store, dataset, "place_id", found.rejected)
        found.original_of = {copy.id: copy.duplicate_of for copy in copies if copy.duplicate_of}
    return found


def copies_of(store: Store, dataset: Dataset, ids: Collection[str]) -> list[Place]:
    """Documents of the dataset that were dropped as duplicates of these, in this dataset or in an earlier one."""
    return list(_copies(store, dataset, "duplicate_of_place", ids)) if ids else []


def places_of(store: Store, dataset: Dataset, ids: Collection[str]) -> list[Place]:
    """Where documents of the dataset came from."""
    tables = _tables(store, dataset, "metrics", ["place_id", "source_uri", "position"]) if ids else ()
    rows = (row for table in tables for row in table.filter(_among(table["place_id"], ids)).to_pylist())
    return [Place(row["place_id"], row["source_uri"], row["position"]) for row in rows]


def rewrite(store: Store, dataset: Dataset, dataset_id: str, prefix: str, erased: Collection[str]) -> Dataset:
    """Write the dataset again below `prefix`, without the rows of these ids. The manifest is the caller's.

    A file of which nothing is left is not written. Raises StorageError when the store fails.
    """
    documents, characters, tokens, domains, languages, rejected = (Counter[str]() for _ in range(6))
    n_redacted_before = n_redacted = n_reserved = 0
    for folder in (each for each in FOLDERS if each != "frequencies"):
        for key in list(store.keys(f"{dataset.prefix}{folder}/")):
            table = store.get_table(key)
            left = table.filter(pc.invert(_among(table["place_id"], erased)))
            if len(left):
                store.put_table(f"{prefix}{key.removeprefix(dataset.prefix)}", left)
            if folder == "shards":
                split = key.rsplit("/", 1)[-1].partition("-")[0]
                documents[split] += len(left)
                characters[split] += pc.sum(left["n_characters"]).as_py() or 0
                tokens[split] += pc.sum(left["n_tokens"]).as_py() or 0
                domains.update(sums(left, "domain", "n_tokens"))
                languages.update(left["lang"].to_pylist())
            elif folder == "reserve":
                n_reserved += len(left)
            elif folder == "metrics":
                rejected.update(left["reason"].drop_null().to_pylist())
                n_redacted_before += pc.sum(table["n_redacted"]).as_py() or 0
                n_redacted += pc.sum(left["n_redacted"]).as_py() or 0
    _count_terms(store, dataset, prefix)
    n_kept = sum(documents.values())
    return dataset.model_copy(
        update={
            "dataset_id": dataset_id,
            "prefix": prefix,
            "n_read": n_kept + sum(rejected.values()),
            "n_kept": n_kept,
            "rejected": dict(sorted(rejected.items())),
            # Which kinds the erased ones held is told nowhere.
            "redacted": dataset.redacted if n_redacted == n_redacted_before else {"spans": n_redacted},
            "n_documents": {split: documents[split] for split in SPLITS},
            "n_characters": {split: n for split, n in characters.items() if n},
            "n_tokens": {split: n for split, n in tokens.items() if n},
            "domains": dict(domains),
            "languages": dict(languages),
            "n_reserved": n_reserved,
        }
    )


def _count_terms(store: Store, dataset: Dataset, prefix: str) -> None:
    """Count the terms of what is left, where those of the dataset were counted."""
    for key in list(store.keys(f"{dataset.prefix}frequencies/")):
        name = key.rsplit("/", 1)[-1]
        shards = [f"{prefix}shards/{split}-{name}" for split in SPLITS]
        texts = [store.get_table(shard, ["text"])["text"].to_pylist() for shard in shards if store.exists(shard)]
        found = document_frequencies(terms_of([text for some in texts for text in some]))
        store.put_table(f"{prefix}frequencies/{name}", found.to_table())


def _ids_given(store: Store, dataset: Dataset, given_ids: Collection[str]) -> Iterator[tuple[str, str]]:
    """`(place id, given id)` of what bears a given id. A long document was cut: its parts bear `<id>#<number>`."""
    for folder in ("shards", "rejects"):
        for table in _tables(store, dataset, folder, ["id", "place_id", "position"]):
            given = table["id"].cast(pa.string())
            is_part = pc.match_substring_regex(table["position"].cast(pa.string()), r"part:[0-9]+$")
            whole = pc.if_else(is_part, pc.replace_substring_regex(given, r"#[0-9]+$", ""), given)
            for name in (given, whole):
                hit = _among(name, given_ids)
                yield from zip(table["place_id"].filter(hit).to_pylist(), name.filter(hit).to_pylist(), strict=True)


def _copies(store: Store, dataset: Dataset, column: str, values: Collection[str]) -> Iterator[Place]:
    columns = ["place_id", "source_uri", "position", "duplicate_of_place"]
    for table in _tables(store, dataset, "rejects", columns):
        hit = pc.and_(_among(table[column], values), pc.is_valid(table["duplicate_of_place"]))
        yield from (Place(*row.values()) for row in table.filter(hit).select(columns).to_pylist())


def _tables(store: Store, dataset: Dataset, folder: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    for key in list(store.keys(f"{dataset.prefix}{folder}/")):
        yield store.get_table(key, columns)


def _among(column: pa.ChunkedArray, values: Iterable[str]) -> pa.ChunkedArray:
    """Whether each value is one of these; false for null."""
    return pc.fill_null(pc.is_in(column.cast(pa.string()), pa.array(list(values), pa.string())), False)


def _texts(texts: Iterable[int]) -> pa.Array:
    return pa.array(list(texts), pa.uint64())
