"""Prepared datasets for tests of what looks at them: real Parquet files in a store, without Beam."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lake.records import SPLITS, Dataset
from lake.store import Store

# Columns by the table that holds them, as the job writes them now and as it did before places had ids of their own.
_PLACE = ["source_uri", "source_etag", "position"]
_MEASURES = ["lang", "domain", "n_characters", "n_words", "n_tokens", "letters_share", "repetition"]
_REJECT = ["reason", "detail", "duplicate_of", "similarity"]
_LATER = {"place_id", "domain", "n_tokens", "duplicate_of_place"}
TABLES = {
    "shards": ["id", "place_id", "text", *_PLACE, *_MEASURES],
    "rejects": ["id", "place_id", *_PLACE, *_REJECT, "duplicate_of_place"],
    "metrics": ["id", "place_id", *_PLACE, "reason", *_MEASURES, "pii_leaks"],
}
TYPES = {
    **dict.fromkeys(("n_characters", "n_words", "n_tokens", "pii_leaks"), pa.int64()),
    **dict.fromkeys(("letters_share", "repetition", "similarity"), pa.float64()),
}

Row = dict[str, Any]


def kept(name: str, text: str, split: str = "train", **changes: Any) -> Row:
    """A kept document at `line:1` of an object of its own, or where `changes` say."""
    return {
        "place_id": f"place-{name}",
        "id": name,
        "text": text,
        "split": split,
        "source_uri": f"s3://b/inbox/docs/{name}.jsonl",
        "source_etag": "e1",
        "position": "line:1",
        "reason": None,
        "lang": "en",
        "domain": "wiki",
        "n_characters": len(text),
        "n_words": len(text.split()),
        "n_tokens": len(text.split()),
        "letters_share": 0.8,
        "repetition": 0.1,
        "pii_leaks": 0,
    } | changes


def rejected(name: str, reason: str, **changes: Any) -> Row:
    """A reject of that reason."""
    empty = dict.fromkeys(("detail", "duplicate_of", "duplicate_of_place", "similarity"))
    return kept(name, "", **{"reason": reason, **empty, **changes})


def put_dataset(
    store: Store, prefix: str, rows: Sequence[Row], *, earlier: bool = False, manifest: bool = False, **changes: Any
) -> Dataset:
    """Write the rows in two chunks. `earlier`: with the columns that the first version wrote."""
    for number, some in enumerate((rows[::2], rows[1::2])):
        chosen = [row for row in some if row["reason"] is None]
        files = {f"shards/{split}-": [row for row in chosen if row["split"] == split] for split in SPLITS}
        files |= {"rejects/": [row for row in some if row["reason"]], "metrics/": list(some)}
        for name, found in files.items():
            if found or name == "metrics/":
                folder = name.partition("/")[0]
                store.put_table(f"{prefix}{name}n{number:06d}.parquet", table_of(found, TABLES[folder], earlier))
    n_kept = sum(row["reason"] is None for row in rows)
    told = {
        "dataset_id": "d1",
        "model": "docs",
        "drop_id": "drop-1",
        "prefix": prefix,
        "history_ids": (),
        "n_objects": len({row["source_uri"] for row in rows}),
        "n_read": len(rows),
        "n_kept": n_kept,
        "rejected": dict(Counter(row["reason"] for row in rows if row["reason"])),
        "redacted": {"email": 2},
        "n_documents": {s: sum(row["reason"] is None and row["split"] == s for row in rows) for s in SPLITS},
        "n_characters": {s: sum(row["n_characters"] for row in rows if row["split"] == s) for s in SPLITS},
    }
    dataset = Dataset.model_validate(told | changes)
    if manifest:
        # Where it lay when it was written is of no matter: it may have been copied.
        dataset = dataset.model_copy(update={"prefix": "where/it/was/"}) if not prefix else dataset
        store.put(f"{prefix}manifest.json", json.dumps({"record": dataset.model_dump(mode="json")}).encode())
    return dataset


def table_of(rows: Sequence[Row], names: Sequence[str], earlier: bool = False) -> pa.Table:
    """Rows as a table. In the earlier version, `id` was the place's, and a given id had a column of its own."""
    names = [name for name in names if not (earlier and name in _LATER)]
    columns = {
        name: pa.array([_value(row, name, earlier) for row in rows], TYPES.get(name, pa.string())) for name in names
    }
    if earlier and ("text" in names or "detail" in names):
        columns["given_id"] = pa.array(
            [row["id"] if row["id"] != row["place_id"] else None for row in rows], pa.string()
        )
    return pa.table(columns)


def _value(row: Row, name: str, earlier: bool) -> Any:
    return row["place_id"] if earlier and name == "id" else row[name]
