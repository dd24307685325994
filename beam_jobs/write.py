"""What the job leaves of one part: shards by split, signatures of the kept, rejects with reasons, metrics without text."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.split import splits_of
from lake.bucket import Bucket
from lake.recipe import PrepareRules
from lake.records import SPLITS

_SHARD = ["id", "given_id", "text", "source_uri", "source_etag", "position", "lang", "n_characters", "n_words"]
_METRICS = ["id", "source_uri", "position", "reason", "lang", "n_characters", "n_words", "letters_share", "repetition"]
_METRICS += ["n_redacted", "pii_leaks"]
_SIGNATURES = ["id", "exact", "signature", "shingles"]
_REJECTS = ["id", "given_id", "source_uri", "source_etag", "position", "reason", "detail"]


class Drops(NamedTuple):
    """Rows of a part that deduplication drops: parallel lists of row, reason, kept document's id and similarity."""

    rows: list[int]
    reasons: list[str]
    kept: list[str]
    similarities: list[float]


def write_part(
    bucket: Bucket, prefix: str, source: str, table: pa.Table, dropped: Drops, rules: PrepareRules
) -> dict[str, dict[str, int]]:
    """Write one part's outputs. Returns its counts: documents, characters, rejected and redacted."""
    table = _with_drops(table, dropped)
    counts: dict[str, dict[str, int]] = {
        "documents": {},
        "characters": {},
        "rejected": dict(Counter(table["reason"].drop_null().to_pylist())),
        "redacted": {"spans": pc.sum(table["n_redacted"]).as_py() or 0},
    }
    kept = table.filter(pc.is_null(table["reason"]))
    splits = splits_of(kept["exact"].to_numpy(), rules.validation_share, rules.test_share)
    for split in SPLITS:
        shard = kept.select(_SHARD).filter(pa.array(splits == split))
        if len(shard):
            bucket.put_table(f"{prefix}shards/{split}-{source}.parquet", shard)
            counts["documents"][split] = len(shard)
            counts["characters"][split] = pc.sum(shard["n_characters"]).as_py()
    if len(kept):
        bucket.put_table(f"{prefix}signatures/{source}.parquet", kept.select(_SIGNATURES))
    rejects = table.filter(pc.is_valid(table["reason"])).select([*_REJECTS, "duplicate_of", "similarity"])
    if len(rejects):
        bucket.put_table(f"{prefix}rejects/{source}.parquet", rejects)
    bucket.put_table(f"{prefix}metrics/{source}.parquet", table.select(_METRICS))
    return counts


def _with_drops(table: pa.Table, dropped: Drops) -> pa.Table:
    """The table with the drops' reasons, and two more columns that say of which document each is a duplicate."""
    reasons = np.array(table["reason"].to_pylist(), object)
    duplicate_of, similarity = np.full(len(table), None, object), np.full(len(table), None, object)
    rows = np.array(dropped.rows, np.int64)
    reasons[rows], duplicate_of[rows], similarity[rows] = dropped.reasons, dropped.kept, dropped.similarities
    place = table.schema.get_field_index("reason")
    return (
        table.set_column(place, "reason", pa.array(reasons, pa.string()))
        .append_column("duplicate_of", pa.array(duplicate_of, pa.string()))
        .append_column("similarity", pa.array(similarity, pa.float64()))
    )
