"""What the job leaves of one part: shards by split, signatures of the kept, rejects with reasons, metrics without text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from beam_jobs.split import split_of
from lake.bucket import Bucket
from lake.recipe import PrepareRules
from lake.records import SPLITS

REJECTS = pa.schema(
    [
        ("id", pa.string()),
        ("source_uri", pa.string()),
        ("position", pa.string()),
        ("reason", pa.string()),
        ("duplicate_of", pa.string()),
        ("similarity", pa.float64()),
        ("detail", pa.string()),
    ]
)
_SHARD = ["id", "text", "source_uri", "source_etag", "position", "lang", "n_characters", "n_words"]
_METRICS = ["id", "source_uri", "position", "reason", "lang", "n_characters", "n_words", "letters_share", "repetition"]
_METRICS += ["n_redacted", "pii_leaks"]
_SIGNATURES = ["id", "exact", "signature", "shingles"]


def write_part(
    bucket: Bucket,
    prefix: str,
    source: str,
    table: pa.Table,
    dropped: Mapping[int, tuple[str, str, float]],
    rules: PrepareRules,
) -> dict[str, dict[str, int]]:
    """Write one part's outputs. `dropped` maps a row to `(reason, kept id, similarity)`. Returns its counts."""
    reasons = table["reason"].to_pylist()
    for row, (reason, _, _) in dropped.items():
        reasons[row] = reason
    table = table.set_column(table.schema.get_field_index("reason"), "reason", pa.array(reasons, pa.string()))
    kept = [row for row, reason in enumerate(reasons) if reason is None]
    exact = table["exact"].to_pylist()
    splits = {row: split_of(exact[row], rules.validation_share, rules.test_share) for row in kept}
    counts: dict[str, dict[str, int]] = {
        "documents": {},
        "characters": {},
        "rejected": {},
        "redacted": {"spans": int(np.sum(table["n_redacted"].to_numpy()))},
    }
    for split in SPLITS:
        rows = [row for row in kept if splits[row] == split]
        if rows:
            shard = table.select(_SHARD).take(rows)
            bucket.put_table(f"{prefix}shards/{split}-{source}.parquet", shard)
            counts["documents"][split] = len(rows)
            counts["characters"][split] = int(np.sum(shard["n_characters"].to_numpy()))
    if kept:
        bucket.put_table(f"{prefix}signatures/{source}.parquet", table.select(_SIGNATURES).take(kept))
    rejects = [_reject(table, row, dropped.get(row)) for row, reason in enumerate(reasons) if reason is not None]
    if rejects:
        bucket.put_table(f"{prefix}rejects/{source}.parquet", pa.Table.from_pylist(rejects, schema=REJECTS))
    for reason in filter(None, reasons):
        counts["rejected"][reason] = counts["rejected"].get(reason, 0) + 1
    bucket.put_table(f"{prefix}metrics/{source}.parquet", table.select(_METRICS))
    return counts


def _reject(table: pa.Table, row: int, duplicate: tuple[str, str, float] | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        name: table[name][row].as_py() for name in ("id", "source_uri", "position", "reason", "detail")
    }
    return told | {
        "duplicate_of": duplicate[1] if duplicate else None,
        "similarity": duplicate[2] if duplicate else None,
    }
