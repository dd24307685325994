"""docs/rollout-metrics.md against the metrics that there are: none is missing, and none is told otherwise."""

from __future__ import annotations

import re
from pathlib import Path

from flows import rollout_business, rollout_feedback, rollout_scorers
from flows.rollout_answers import MAX_PAIRS
from flows.rollout_quality import EVERY_S
from flows.rollout_users import GRACE, SETTLE
from lake.recipe.rollout_metrics import _METRICS, Metric, metric  # all of them

PAGE = (Path(__file__).parents[3] / "docs" / "rollout-metrics.md").read_text()
FAMILIES = {"latency_p50": "latency_p95", "first_token_p50": "first_token_p95", "business:<name>": "business:orders"}


def rows() -> dict[str, list[str]]:
    """The table's rows by their first metric: cells."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| `")]
    return {re.findall(r"`([^`]+)`", line)[0]: [cell.strip() for cell in line.split("|")[1:-1]] for line in lines}


def metrics() -> dict[str, Metric]:
    return {found.name: found for found in _METRICS} | {row: metric(name) for row, name in FAMILIES.items()}


def test_every_metric_has_a_row_and_every_row_a_metric() -> None:
    assert rows().keys() == metrics().keys()


def test_rows_tell_what_the_code_does() -> None:
    for name, cells in rows().items():
        found = metrics()[name]
        _, _, unit, better, margin, stages, by = cells
        assert unit.split(",")[0] == {"points": "points", "score": "score", "ratio": "factor"}[found.unit], name
        assert better == found.better, name
        assert float(margin) == found.margin, name
        assert stages == ", ".join(found.stages), name
        assert ("log" in by) == found.needs_log, name


def test_figures_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    for told in (
        f"At most {MAX_PAIRS} pairs count each {EVERY_S:g} s",
        f"at most {rollout_feedback.MAX_OBJECT_BYTES // 10**6} MB",
        f"within {rollout_business.TIMEOUT_S:g} s",
        f"at most {rollout_business.MAX_VALUES:,} a version",
        f"too short to tell ({rollout_scorers.LANGUAGE_CHARACTERS} letters) or told with less than "
        f"{rollout_scorers.LANGUAGE_PROBABILITY}",
        f"first {rollout_scorers.PERPLEXITY_TOKENS} tokens",
        f"{GRACE.total_seconds():g} s after the step",
        f"must have been written: {SETTLE.total_seconds():g} s",
        rollout_business.TOKEN_VARIABLE,
    ):
        assert told in text, told
    assert rollout_scorers.PERPLEXITY_PAIRS == 2 and "two pairs every 5 s" in text
