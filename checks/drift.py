"""Drift of live traffic: has the topic of the requests changed since the version went live?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime

from lake.bucket import Bucket, BucketAddress
from lake.errors import TidemillError
from lake.layout import report_prefix
from lake.recipe import Monitoring
from lake.records import DriftVerdict, PredictionLog


def detect(
    model: str,
    version: str,
    reference: Sequence[PredictionLog],
    current: Sequence[PredictionLog],
    rules: Monitoring,
    previous: Sequence[DriftVerdict],
    address: BucketAddress,
    drift_id: str,
) -> DriftVerdict:
    """Compare the prompts of two windows, and leave an Evidently report in the bucket.

    A window has drifted when the permutation test's p-value is at most `rules.max_p_value`. `previous` are the
    version's earlier verdicts, oldest first: drift is confirmed by `rules.confirm_windows` drifted ones in a row.
    Raises TidemillError when a window has fewer than 2 requests, StorageError when the bucket does not answer.
    """
    for name, window in (("reference", reference), ("current", current)):
        if len(window) < 2:
            raise TidemillError(
                f"drift {drift_id}, {name} window",
                expected="at least 2 requests",
                got=str(len(window)),
                remedy="wait for more traffic, or raise the recipe's monitoring.log_share",
            )
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Evidently reports every use to its maker otherwise
    from checks.drift_report import METHOD, measure  # 10 s of imports, and only now must they happen
    from checks.embeddings import embed

    vectors = [embed([row.prompt for row in window]) for window in (reference, current)]
    measured = measure(reference, current, vectors[0], vectors[1], rules)
    report_key = f"{report_prefix(model, 'drift', drift_id)}report.html"
    Bucket(address).put(report_key, measured.report.encode(), "text/html; charset=utf-8")
    drifted = measured.p_value <= rules.max_p_value
    return DriftVerdict(
        drift_id=drift_id,
        model=model,
        version=version,
        method=METHOD,
        statistic=measured.statistic,
        p_value=measured.p_value,
        n_reference=len(reference),
        n_current=len(current),
        drifted=drifted,
        confirmed=is_confirmed(drifted, [v for v in previous if v.drift_id != drift_id], rules.confirm_windows),
        report_key=report_key,
        decided_at=datetime.now(UTC),
    )


def is_confirmed(drifted: bool, previous: Sequence[DriftVerdict], confirm_windows: int) -> bool:
    """Whether this window and the newest `confirm_windows - 1` before it have all drifted."""
    before = previous[len(previous) - (confirm_windows - 1) :] if confirm_windows > 1 else ()
    return drifted and len(previous) >= confirm_windows - 1 and all(verdict.drifted for verdict in before)
