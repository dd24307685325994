"""Has the data of a drop moved away from what came before it? Lengths, languages, domains, rejects and the schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from checks.stability import stability_of_categories, stability_of_numbers
from lake.recipe import CheckRules
from lake.records import Dataset

OVER_QUOTA = "over_quota"  # the reason of a good document that waits in `reserve/` for a later drop
# A field that fewer records than this have is an exception, not part of the schema.
_RARE = 0.01


@dataclass(frozen=True)
class DataDrift:
    """What was measured. A measure that could not be taken is None, and `skipped` says why."""

    length: float | None = None
    language: float | None = None
    domain: float | None = None
    reject_rate_change: float | None = None
    schema: SchemaDrift | None = None
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class SchemaDrift:
    """The input's columns against those of history, by name; `types` reads "name (was int, is string)"."""

    new: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    types: tuple[str, ...] = ()


@dataclass
class _Measures:
    """Measures as they are taken, and what could not be."""

    skipped: list[str] = field(default_factory=list)

    def of_numbers(self, name: str, kept: pd.DataFrame, before: pd.DataFrame) -> float | None:
        column = next((c for c in ("n_tokens", "n_words") if _has(kept, c) and _has(before, c)), None)
        if column is None:
            self.skipped.append(f"{name}: no lengths in common with history")
            return None
        sides = [pd.to_numeric(side[column], errors="coerce").dropna() for side in (before, kept)]
        return stability_of_numbers(sides[0].tolist(), sides[1].tolist())

    def of_categories(self, name: str, column: str, kept: pd.DataFrame, before: pd.DataFrame) -> float | None:
        if not (_has(kept, column) and _has(before, column)):
            self.skipped.append(f"{name}: not known of both sides")
            return None
        return stability_of_categories(*(side[column].dropna().value_counts().to_dict() for side in (before, kept)))


def measure_drift(
    metrics: pd.DataFrame, dataset: Dataset, before: pd.DataFrame, history: Sequence[Dataset], rules: CheckRules
) -> DataDrift:
    """Compare a drop's metrics (`read_metrics`) with those of earlier drops (`read_history`).

    Kept documents are compared, and rates of rejection (other than duplicates) and columns of what was read. Nothing is
    with fewer than `rules.min_drift_documents` kept documents on a side; the schema is as soon as both are known.
    """
    if not history:
        return DataDrift(skipped=("drift: this is the first drop",))
    schema = _schema(dataset, history)
    kept = metrics[metrics["reason"].isna()] if "reason" in metrics else metrics
    for name, n in (("this drop", len(kept)), ("history", len(before))):
        if n < rules.min_drift_documents:
            return DataDrift(
                schema=schema,
                skipped=(f"drift: {name} has {n} kept documents, at least {rules.min_drift_documents} are compared",),
            )
    take = _Measures([] if schema else ["schema: the input's columns are not known of both sides"])
    return DataDrift(
        length=take.of_numbers("length drift", kept, before),
        language=take.of_categories("language drift", "lang", kept, before),
        domain=take.of_categories("domain drift", "domain", kept, before),
        reject_rate_change=abs(reject_rate([dataset]) - reject_rate(history)),
        schema=schema,
        skipped=tuple(take.skipped),
    )


def reject_rate(datasets: Sequence[Dataset]) -> float:
    """Share of what was read that was found wanting, over all of these: neither a duplicate nor left out by quotas."""
    n_read = sum(dataset.n_read for dataset in datasets)
    rejected = sum(
        n
        for dataset in datasets
        for reason, n in dataset.rejected.items()
        if not is_duplicate(reason) and reason != OVER_QUOTA
    )
    return rejected / max(n_read, 1)


def is_duplicate(reason: str) -> bool:
    """Whether a reason code says that the same text is kept elsewhere."""
    return reason.endswith("_duplicate")


def schema_drift(columns: Mapping[str, int], before: Sequence[Mapping[str, int]]) -> SchemaDrift:
    """Compare columns ("name:type" → records) with those of earlier drops.

    Missing is what every earlier drop had; a type has changed when most records of a name have another one than before.
    """
    now, then = types_of(columns), [types_of(past) for past in before if past]
    known: dict[str, str] = {name: kind for past in then for name, kind in past.items()}
    return SchemaDrift(
        new=tuple(sorted(set(now) - set(known))),
        missing=tuple(sorted(set.intersection(*map(set, then)) - set(now))) if then else (),
        types=tuple(
            f"{name} (was {known[name]}, is {kind})"
            for name, kind in sorted(now.items())
            if name in known and known[name] != kind
        ),
    )


def types_of(columns: Mapping[str, int]) -> dict[str, str]:
    """The commonest type of each column that is not rare. Nulls say nothing about a type unless all are."""
    counts: dict[str, dict[str, int]] = {}
    for column, n in columns.items():
        name, _, kind = column.rpartition(":")
        counts.setdefault(name, {})[kind] = n
    n_records = max((sum(kinds.values()) for kinds in counts.values()), default=0)
    return {
        name: max(kinds, key=lambda kind: (kind not in ("null", "none"), kinds[kind], kind))
        for name, kinds in counts.items()
        if sum(kinds.values()) >= _RARE * n_records
    }


def _schema(dataset: Dataset, history: Sequence[Dataset]) -> SchemaDrift | None:
    before = [past.columns for past in history if past.columns]
    return schema_drift(dataset.columns, before) if dataset.columns and before else None


def _has(frame: pd.DataFrame, column: str) -> bool:
    return column in frame and bool(frame[column].notna().any())
