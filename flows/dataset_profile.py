"""What a dataset holds in figures: from its record where that has them, else from its tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flows.dataset_find import Stored
from lake.tables import tables_of

_COLUMNS = ("reason", "lang", "domain", "n_tokens", "source_uri")


@dataclass(frozen=True)
class Profile:
    """Kept documents by language, tokens (documents, where they are not counted) by domain, documents kept by source,
    of all that were read, and bytes and files by folder."""

    languages: dict[str, int]
    domains: dict[str, int]
    tokens: dict[str, int]
    sources: dict[str, tuple[int, int]]
    size_bytes: dict[str, int]
    files: dict[str, int]


def profile(stored: Stored) -> Profile:
    """Reads the metrics, not the texts. `sources` maps an object to its documents kept and read, most read first."""
    languages: Counter[str] = Counter()
    domains: Counter[str] = Counter()
    kept_of: Counter[str] = Counter()
    read_of: Counter[str] = Counter()
    for table in tables_of(stored.store, stored.prefix, "metrics", _COLUMNS):
        kept = table.filter(pc.is_null(table["reason"]))
        languages.update(_counts(kept, "lang"))
        domains.update(_tokens(kept))
        kept_of.update(_counts(kept, "source_uri"))
        read_of.update(_counts(table, "source_uri"))
    size_bytes: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for ref in stored.store.list(stored.prefix):
        folder, slash, _ = ref.key.removeprefix(stored.prefix).partition("/")
        size_bytes[folder if slash else "manifest"] += ref.size_bytes
        files[folder if slash else "manifest"] += 1
    dataset = stored.dataset
    return Profile(
        languages=dict(dataset.languages or languages.most_common()),
        domains=dict(dataset.domains or domains.most_common()),
        tokens=dict(dataset.n_tokens),
        sources={uri: (kept_of[uri], n) for uri, n in read_of.most_common()},
        size_bytes=dict(size_bytes),
        files=dict(files),
    )


def as_json(stored: Stored, found: Profile, n_sources: int) -> dict[str, Any]:
    """The record and the figures that it lacks."""
    told = stored.dataset.model_dump(mode="json")
    return told | {
        "languages": found.languages,
        "domains": found.domains,
        "sources": [
            {"source_uri": uri, "kept": kept, "read": read}
            for uri, (kept, read) in list(found.sources.items())[:n_sources]
        ],
        "size_bytes": found.size_bytes,
        "files": found.files,
        "uri": stored.store.uri(stored.prefix),
        "check": stored.checked and stored.checked.model_dump(mode="json"),
    }


def _counts(table: pa.Table, column: str) -> dict[str, int]:
    if column not in table.column_names:
        return {}
    counted = table[column].drop_null().value_counts()
    return {str(row["values"]): row["counts"] for row in counted.to_pylist()}


def _tokens(kept: pa.Table) -> dict[str, int]:
    if "domain" not in kept.column_names or "n_tokens" not in kept.column_names:
        return _counts(kept, "domain")
    summed = kept.select(["domain", "n_tokens"]).group_by("domain").aggregate([("n_tokens", "sum")])
    return {str(row["domain"]): row["n_tokens_sum"] or 0 for row in summed.to_pylist() if row["domain"]}
