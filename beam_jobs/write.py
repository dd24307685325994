"""What the job leaves of one chunk: shards by split, signatures and shingles of the kept, rejects with reasons,
metrics of all without text, and what quotas left out, whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from beam_jobs.dedup import Duplicate
from beam_jobs.mix.distinctiveness import document_frequencies
from beam_jobs.mix.terms import terms_of
from beam_jobs.part import SCHEMA, ids_of
from beam_jobs.split import splits_of
from lake.recipe import PrepareRules
from lake.records import SPLITS
from lake.store import Store

OVER_QUOTA = "over_quota"
FOLDERS = ("shards", "signatures", "shingles", "rejects", "metrics", "reserve", "paragraphs", "frequencies")

_NOT_TOLD = {"text", "reason", "detail", "redacted", "exact", "signature", "keys", "shingles", "given_id"}
_OF_KEPT = [name for name in SCHEMA.names if name not in _NOT_TOLD]
_SHARD = ["id", "text", *_OF_KEPT]
_METRICS = ["id", "reason", *_OF_KEPT]
_SIGNATURES = ["id", "place_id", "exact", "signature", "keys"]
_SHINGLES = ["id", "place_id", "shingles"]
_REJECTS = ["id", "place_id", "source_uri", "source_etag", "position", "reason", "detail"]
_REJECTS += ["duplicate_of", "similarity", "duplicate_of_place"]

Counts: TypeAlias = dict[str, dict[str, int]]


NO_ROWS = np.zeros(0, np.int64)
REPEATED = "repeated_paragraphs"


class LeftOut(NamedTuple):
    """Rows that are not kept, though no rule of their own rejects them: duplicates by row, and rows over quota.

    `reserved` are those of the latter that a later drop may have, `emptied` had nothing but repeated paragraphs.
    """

    duplicates: Mapping[int, Duplicate] = {}
    over_quota: NDArray[np.int64] = NO_ROWS
    reserved: NDArray[np.int64] = NO_ROWS
    emptied: NDArray[np.int64] = NO_ROWS


def write_source(
    store: Store,
    prefix: str,
    name: str,
    table: pa.Table,
    left_out: LeftOut,
    rules: PrepareRules,
    paragraphs: pa.Table | None = None,
) -> Counts:
    """Write one chunk's outputs below `prefix`, in files called `name`. Returns its counts, each by a name of its own.

    `left_out` speaks of rows of the table, which is by `part.SCHEMA`; `paragraphs` are its `(place_id, hash)`, where
    the recipe wants them known.
    """
    reserve = table.take(left_out.reserved)
    table = _with_reasons(table, left_out)
    table = table.append_column("id", ids_of(table))
    is_kept = pc.is_null(table["reason"])
    # Text is most of a chunk: it is copied once, into the shard.
    kept = table.drop_columns("text").filter(is_kept)
    counts: Counts = {
        "rejected": dict(Counter(table["reason"].drop_null().to_pylist())),
        "reserved": {"documents": len(reserve)},
        "redacted": _redacted(table),
        "domains": sums(kept, "domain", "n_tokens"),
        "languages": dict(Counter(kept["lang"].to_pylist())),
    }
    splits = splits_of(kept["exact"].to_numpy(), rules.validation_share, rules.test_share)
    split_of = np.full(len(table), "", splits.dtype)
    split_of[np.asarray(is_kept)] = splits
    for split in SPLITS:
        shard = table.select(_SHARD).filter(pa.array(split_of == split))
        if len(shard):
            store.put_table(f"{prefix}shards/{split}-{name}.parquet", shard)
            for count, column in (("characters", "n_characters"), ("tokens", "n_tokens")):
                counts.setdefault(count, {})[split] = pc.sum(shard[column]).as_py()
            counts.setdefault("documents", {})[split] = len(shard)
    rejects = table.select(_REJECTS).filter(pc.is_valid(table["reason"]))
    if paragraphs is not None:
        paragraphs = paragraphs.filter(pc.is_in(paragraphs["place_id"], kept["place_id"].combine_chunks()))
    for folder, rows in (
        ("signatures", kept.select(_SIGNATURES)),
        ("shingles", kept.select(_SHINGLES)),
        ("rejects", rejects),
        ("reserve", reserve),
        ("paragraphs", paragraphs or ()),
        ("frequencies", _frequencies(table, rules)),
    ):
        if len(rows):
            store.put_table(f"{prefix}{folder}/{name}.parquet", rows)
    store.put_table(f"{prefix}metrics/{name}.parquet", table.select(_METRICS))
    return counts


def _with_reasons(table: pa.Table, left_out: LeftOut) -> pa.Table:
    """The table with the reasons of what is left out, and columns that say of which document each is a duplicate."""
    reasons = np.array(table["reason"].to_pylist(), object)
    duplicate_of, of_place, similarity = (np.full(len(table), None, object) for _ in range(3))
    for row, duplicate in left_out.duplicates.items():
        reasons[row], duplicate_of[row], of_place[row] = (
            duplicate.reason,
            duplicate.identity.id,
            duplicate.identity.place_id,
        )
        similarity[row] = round(duplicate.similarity, 6)
    details = np.array(table["detail"].to_pylist(), object)
    reasons[left_out.over_quota], details[left_out.over_quota] = OVER_QUOTA, "beyond what is kept for later drops"
    reasons[left_out.emptied], details[left_out.emptied] = REPEATED, "nothing else is in it"
    details[left_out.reserved] = "kept for later drops"
    return (
        table.set_column(table.schema.get_field_index("reason"), "reason", pa.array(reasons, pa.string()))
        .set_column(table.schema.get_field_index("detail"), "detail", pa.array(details, pa.string()))
        .append_column("duplicate_of", pa.array(duplicate_of, pa.string()))
        .append_column("similarity", pa.array(similarity, pa.float64()))
        .append_column("duplicate_of_place", pa.array(of_place, pa.string()))
    )


def _frequencies(table: pa.Table, rules: PrepareRules) -> pa.Table:
    """In how many of the kept documents each term stands, where the recipe weighs documents by that."""
    if rules.mix is None or rules.mix.value != "tfidf":
        return ()
    kept = table["text"].filter(pc.is_null(table["reason"]))
    return document_frequencies(terms_of(kept.to_pylist())).to_table()


def _redacted(table: pa.Table) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for kinds in table["redacted"].to_pylist():
        counts.update(dict(kinds or ()))
    return {kind: n for kind, n in counts.items() if n}


def sums(table: pa.Table, by: str, column: str) -> dict[str, int]:
    """The sum of a column for each value of another one, nulls left out."""
    grouped = table.filter(pc.is_valid(table[by])).group_by(by).aggregate([(column, "sum")])
    return dict(zip(grouped[by].to_pylist(), grouped[f"{column}_sum"].to_pylist(), strict=True))
