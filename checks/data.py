"""The data gate: does a prepared drop meet the recipe's expectations? Great Expectations judges metrics, never text."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from checks.data_docs import offline_pages
from checks.data_drift import measure_drift
from checks.data_report import Judged, render_markdown, render_summary
from checks.histograms import drop_picture
from checks.judge import judge
from checks.metrics_table import read_history, read_metrics
from lake.recipe import Recipe
from lake.recipe.check import SEVERITY
from lake.records import CheckReport, Dataset
from lake.store import Address


def check(
    dataset: Dataset,
    recipe: Recipe,
    address: Address,
    check_id: str,
    prefix: str,
    history: Sequence[Dataset] = (),
) -> CheckReport:
    """Validate a dataset's metrics, and against those of `history`, oldest first. A failure is reported, not raised.

    Leaves below `prefix`: `validation.html` and `suite.html` (Data Docs), `report.md` and `report.png`.
    Raises StorageError when metrics cannot be read.
    """
    store = address.open()
    metrics, before = read_metrics(store, dataset), read_history(store, history)
    drift = measure_drift(metrics, dataset, before, history, recipe.check)
    title = f"{dataset.model}, dataset {dataset.dataset_id}"
    with tempfile.TemporaryDirectory(prefix="tidemill-check-") as folder:
        judged = judge(metrics, dataset, recipe, drift, Path(folder))
        picture = drop_picture(metrics, dataset, before)
        head = render_summary(title, judged, drift.skipped, picture)
        for name, page in offline_pages(Path(folder), list(SEVERITY), head).items():
            store.put(f"{prefix}{name}", page.encode(), "text/html; charset=utf-8")
    store.put(f"{prefix}report.md", render_markdown(title, judged, drift.skipped).encode(), "text/markdown")
    store.put(f"{prefix}report.png", picture, "image/png")
    return report_of(dataset, judged, drift.skipped, check_id, prefix)


def report_of(
    dataset: Dataset, judged: Sequence[Judged], skipped: Sequence[str], check_id: str, prefix: str
) -> CheckReport:
    """The record of what was judged. Warnings let a drop pass."""
    return CheckReport(
        check_id=check_id,
        dataset_id=dataset.dataset_id,
        passed=all(one.outcome != "failed" for one in judged),
        n_expectations=len(judged),
        failures=tuple(one.told for one in judged if one.outcome == "failed"),
        data_docs_key=f"{prefix}validation.html",
        warnings=tuple(one.told for one in judged if one.outcome == "warned"),
        skipped=tuple(skipped),
        suites={
            suite: dict(Counter(one.outcome for one in judged if one.suite == suite))
            for suite in dict.fromkeys(one.suite for one in judged)
        },
    )
