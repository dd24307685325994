"""Some documents of a dataset to look at, drawn at random: kept ones with their text, rejects with their reason."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from checks.data_drift import OVER_QUOTA
from flows.dataset_find import Stored
from lake.tables import read_present, table_keys


@dataclass(frozen=True)
class Wanted:
    """Which documents. With a `reason`, rejects; "any" is every reason."""

    split: str | None = None
    lang: str | None = None
    domain: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Seen:
    """A row of the shards or of the rejects, its row of the metrics, and for a duplicate the document kept instead.

    Of rejects, only what quotas left out has a text: it waits for a later drop.
    """

    row: dict[str, Any]
    metrics: dict[str, Any]
    kept: dict[str, Any] | None = None
    kept_in: str | None = None

    @property
    def text(self) -> str | None:
        return self.row.get("text")


def draw(stored: Stored, wanted: Wanted, n: int, seed: int, history: Sequence[Stored] = ()) -> tuple[list[Seen], int]:
    """`n` documents, the same ones for the same seed, and of how many.

    What is kept instead of a duplicate is looked up here, in `history`, and in other datasets of the model. Texts are read of the files that drawn documents lie in, one file at a time.
    """
    folder = "rejects" if wanted.reason else "shards"
    places: list[tuple[str, int]] = []
    for key in table_keys(stored.store, stored.prefix, folder):
        if wanted.split and not wanted.reason and not _name(key).startswith(f"{wanted.split}-"):
            continue
        places += [(key, row) for row in _rows(stored, key, wanted)]
    drawn = random.Random(seed).sample(places, min(n, len(places)))  # noqa: S311  # to look at, not to guard
    by_key: dict[str, list[int]] = defaultdict(list)
    for key, row in drawn:
        by_key[key].append(row)
    rows = {
        (key, number): row
        for key, numbers in by_key.items()
        for number, row in zip(numbers, read_present(stored.store, key).take(numbers).to_pylist(), strict=True)
    }
    ordered = [rows[place] for place in drawn]
    metrics = _metrics(stored, {key for key, _ in drawn}, {_place(row) for row in ordered})
    _add_reserved(stored, ordered, {key for key, _ in drawn})
    at_hand = (stored, *history, *stored.others) if any(map(_original, ordered)) else ()
    kept = _kept(at_hand, {original for row in ordered if (original := _original(row))})
    return [Seen(row, metrics.get(_place(row), {}), *kept.get(_original(row), (None, None))) for row in ordered], len(
        places
    )


def _rows(stored: Stored, key: str, wanted: Wanted) -> list[int]:
    """Numbers of the rows of a file that are wanted."""
    table = read_present(stored.store, key, ("id", "place_id", "lang", "domain", "reason"))
    if wanted.reason and {wanted.lang, wanted.domain} != {None}:
        table = _with_metrics(stored, key, table)
    hit = pa.array([True] * len(table))
    for column in ("lang", "domain", "reason"):
        value = getattr(wanted, column)
        if value is None or (column, value) == ("reason", "any"):
            continue
        if column not in table.column_names:
            return []
        hit = pc.and_(hit, pc.fill_null(pc.equal(table[column].cast(pa.string()), value), False))
    return [number for number, taken in enumerate(hit.to_pylist()) if taken]


def _with_metrics(stored: Stored, key: str, rejects: pa.Table) -> pa.Table:
    """The rejects with language and domain, which only the metrics have."""
    places = [_place(row) for row in rejects.select(_ids(rejects)).to_pylist()]
    metrics = _metrics(stored, {key}, set(places))
    for column in ("lang", "domain"):
        values = [metrics.get(place, {}).get(column) for place in places]
        rejects = rejects.append_column(column, pa.array(values, pa.string()))
    return rejects


def _metrics(stored: Stored, keys: Collection[str], places: Collection[str]) -> dict[str, dict[str, Any]]:
    """Rows of the metrics by place, from the files of the same chunks as these shards or rejects."""
    found = {}
    for name in sorted({_chunk(key) for key in keys}):
        table = read_present(stored.store, f"{stored.prefix}metrics/{name}")
        hit = pc.is_in(table["place_id" if "place_id" in table.column_names else "id"], pa.array(list(places)))
        found.update({_place(row): row for row in table.filter(hit).to_pylist()})
    return found


def _add_reserved(stored: Stored, rows: Sequence[dict[str, Any]], keys: Collection[str]) -> None:
    """Give rows that quotas left out their text."""
    waiting = {_place(row): row for row in rows if row.get("reason") == OVER_QUOTA}
    for name in sorted({_chunk(key) for key in keys}) if waiting else ():
        key = f"{stored.prefix}reserve/{name}"
        if stored.store.exists(key):
            for row in read_present(stored.store, key, ("place_id", "text")).to_pylist():
                if row["place_id"] in waiting:
                    waiting[row["place_id"]]["text"] = row["text"]


def _kept(at_hand: Sequence[Stored], ids: Collection[str]) -> dict[str | None, tuple[dict[str, Any], str]]:
    """Kept documents by id or place, with the dataset they are in: the first one that has them."""
    missing = set(ids)
    found: dict[str | None, tuple[dict[str, Any], str]] = {}
    for dataset in at_hand:
        for key in table_keys(dataset.store, dataset.prefix, "shards") if missing else ():
            named = read_present(dataset.store, key, ("place_id", "id"))
            for column in named.column_names:
                hit = pc.is_in(named[column], pa.array(list(missing), pa.string()))
                if pc.any(hit).as_py():
                    rows = read_present(dataset.store, key).filter(hit).to_pylist()
                    found.update({row[column]: (row, dataset.name) for row in rows})
                    missing -= {row[column] for row in rows}
    return found


def _place(row: dict[str, Any]) -> str:
    return str(row.get("place_id") or row["id"])


def _original(row: dict[str, Any]) -> str | None:
    """What a duplicate is one of: by its place where that is told, as given ids may repeat."""
    return row.get("duplicate_of_place") or row.get("duplicate_of")


def _ids(table: pa.Table) -> list[str]:
    return [name for name in ("place_id", "id") if name in table.column_names]


def _name(key: str) -> str:
    return key.rsplit("/", 1)[-1]


def _chunk(key: str) -> str:
    """`n000003.parquet` of `shards/train-n000003.parquet` and of `rejects/n000003.parquet`."""
    name = _name(key)
    return name.partition("-")[2] if "/shards/" in f"/{key}" else name
