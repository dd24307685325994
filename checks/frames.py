"""What the suites look at: a row for each document, and the drop's own counts and rates repeated on all of them."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from checks.data_drift import DataDrift, is_duplicate, reject_rate
from checks.metrics_table import NUMBERS, REQUIRED
from lake.recipe import Recipe
from lake.records import SPLITS, Dataset

ERASED = "erased"
SHORT = ("too_short", "empty")


def raw_frame(metrics: pd.DataFrame, dataset: Dataset, recipe: Recipe) -> pd.DataFrame:
    """Everything that was read, as it was read. A drop without any document gets one blank row.

    A document that could not be read has no language: cleaning, which finds it out, was never reached.
    """
    frame = metrics.copy() if len(metrics) else pd.DataFrame([{**dict.fromkeys(REQUIRED), "reason": "nothing_read"}])
    n_read = max(dataset.n_read, 1)
    reason, lang = _text(metrics, "reason"), _text(metrics, "lang")
    unreadable = (reason != "") & (lang == "") & (reason != ERASED)
    n_readable = max(int((~unreadable).sum()), 1)
    frame["unreadable_rate"] = int(unreadable.sum()) / n_read
    frame["short_rate"] = int(reason.isin(SHORT).sum()) / n_readable
    long_enough = ~unreadable & ~reason.isin(SHORT)  # a few words may be of any language
    n_foreign = int((long_enough & ~lang.isin(recipe.prepare.languages)).sum())
    frame["foreign_rate"] = n_foreign / max(int(long_enough.sum()), 1)
    frame["reject_rate"] = reject_rate([dataset])
    for code in recipe.check.max_reason_rate:
        frame[f"rate_{code}"] = dataset.rejected.get(code, 0) / n_read
    for column in recipe.check.required_columns:
        frame[f"has_{column}"] = column_share(dataset.columns, column)
    return frame


def clean_frame(metrics: pd.DataFrame, dataset: Dataset, recipe: Recipe) -> pd.DataFrame:
    """The kept documents, one row each. A drop that keeps none gets one blank row, so that its counts are judged."""
    kept = metrics[_text(metrics, "reason") == ""] if len(metrics) else metrics
    frame = kept.copy() if len(kept) else pd.DataFrame([dict.fromkeys(REQUIRED)])
    frame["kept"] = int(len(kept) > 0)
    for column in {*REQUIRED} - {*frame.columns}:
        frame[column] = None
    for column in NUMBERS:
        if column in frame:
            frame[column] = pd.to_numeric(frame[column], errors="coerce").astype(float)
    frame["leaks"] = (frame["pii_leaks"] > 0).astype(float).where(frame["pii_leaks"].notna())
    if "place_id" not in frame:  # of an earlier version: its ids are those of places
        frame["place_id"] = frame["id"]
    frame["n_kept"] = dataset.n_kept
    duplicates = sum(n for reason, n in dataset.rejected.items() if is_duplicate(reason))
    frame["duplicate_rate"] = duplicates / max(dataset.n_read, 1)
    for split in SPLITS:
        frame[f"n_{split}"] = dataset.n_documents.get(split, 0)
    shares = domain_shares(kept)
    frame["largest_domain_share"] = max(shares.values(), default=None)
    for domain in recipe.prepare.mix.quotas if recipe.prepare.mix else ():
        frame[f"share_{domain}"] = shares.get(domain, 0.0)
    return frame


def drift_frame(drift: DataDrift) -> pd.DataFrame:
    """One row with a column for each measure that was taken."""
    measures: dict[str, float | int | None] = {
        "length_psi": drift.length,
        "language_psi": drift.language,
        "domain_psi": drift.domain,
        "reject_rate_change": drift.reject_rate_change,
    }
    if drift.schema is not None:
        measures["n_new_columns"] = len(drift.schema.new)
        measures["n_missing_columns"] = len(drift.schema.missing)
        measures["n_changed_types"] = len(drift.schema.types)
    return pd.DataFrame([{name: value for name, value in measures.items() if value is not None}])


def domain_shares(kept: pd.DataFrame) -> dict[str, float]:
    """Share of the kept tokens (of documents, where tokens are not counted) by domain; empty when none is known."""
    if "domain" not in kept or not kept["domain"].notna().any():
        return {}
    weights = kept["n_tokens"] if "n_tokens" in kept and kept["n_tokens"].notna().any() else pd.Series(1.0, kept.index)
    by_domain = weights.astype(float).groupby(kept["domain"].astype(str)).sum()
    return {str(name): float(n / by_domain.sum()) for name, n in by_domain.items()} if by_domain.sum() else {}


def column_share(columns: Mapping[str, int], wanted: str) -> float:
    """Share of the input's records that have a column, `wanted` as "name" or "name:type"."""
    by_name: dict[str, int] = {}
    for column, n in columns.items():
        name = column.rpartition(":")[0]
        by_name[name] = by_name.get(name, 0) + n
    # A name may itself hold a colon.
    found = by_name[wanted] if wanted in by_name else columns.get(wanted, 0)
    return found / max(by_name.values()) if by_name else 0.0


def _text(frame: pd.DataFrame, column: str) -> pd.Series[str]:
    """A column of words, "" for null and for a column that is not there."""
    if column not in frame:
        return pd.Series("", frame.index, dtype=object)
    return frame[column].astype(object).where(frame[column].notna(), "")
