"""Run the suites: what Great Expectations says of a drop's metrics, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

from checks.data_docs import data_docs_site
from checks.data_drift import DataDrift
from checks.data_report import Judged, Outcome
from checks.frames import clean_frame, drift_frame, raw_frame
from checks.suites import clean_suite, drift_suite, raw_suite
from lake.recipe import Recipe
from lake.records import Dataset

_MOST_NAMES = 20


def judge(
    metrics: pd.DataFrame, dataset: Dataset, recipe: Recipe, drift: DataDrift, data_docs: Path | None = None
) -> list[Judged]:
    """Every expectation that the recipe has of the drop, suite by suite. `metrics` are those of `read_metrics`.

    Runs in a throw-away context that writes its Data Docs below `data_docs`, if that is given.
    """
    # The site is only written by `build_data_docs`.
    context = gx.get_context(mode="ephemeral", project_config=data_docs_site(data_docs or Path("unused")))
    source = context.data_sources.add_pandas("dataset")
    details = _details(dataset, drift)
    judged = []
    for suite in _suites(metrics, dataset, recipe, drift):
        batch = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("all")
        known = context.suites.add(gx.ExpectationSuite(name=suite.name, expectations=suite.expectations))
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=suite.name, data=batch, suite=known)
        )
        checkpoint = context.checkpoints.add(gx.Checkpoint(name=suite.name, validation_definitions=[definition]))
        outcome = checkpoint.run(batch_parameters={"dataframe": suite.frame})
        judged += [_judged(suite.name, result, details) for result in next(iter(outcome.run_results.values())).results]
    if data_docs:
        context.build_data_docs()
    return judged


@dataclass(frozen=True)
class _Suite:
    name: str
    frame: pd.DataFrame
    expectations: list[Expectation]


def _suites(metrics: pd.DataFrame, dataset: Dataset, recipe: Recipe, drift: DataDrift) -> list[_Suite]:
    raw, clean = raw_frame(metrics, dataset, recipe), clean_frame(metrics, dataset, recipe)
    suites = [
        _Suite("raw", raw, raw_suite(recipe, raw)),
        _Suite("clean", clean, clean_suite(recipe, clean, dataset.n_kept)),
    ]
    moved = drift_frame(drift)
    return [*suites, _Suite("drift", moved, drift_suite(recipe, moved))] if len(moved.columns) else suites


def _judged(suite: str, result: Any, details: dict[str, str]) -> Judged:
    config = result.expectation_config
    name = config.meta["name"]
    what, _, expected = config.description.partition(": expected ")
    got = _observed(result)
    if not result.success and name in details:
        got += f" ({details[name]})"
    unmet: Outcome = "warned" if config.severity == FailureSeverity.WARNING else "failed"
    return Judged(suite, name, what, expected, got, "met" if result.success else unmet)


def _observed(result: Any) -> str:
    observed = result.result
    if result.exception_info and result.exception_info.get("raised_exception"):
        return f"an error: {result.exception_info.get('exception_message')}"
    if "observed_value" in observed:
        value = observed["observed_value"]
        if isinstance(value, list):
            missing = observed["details"].get("mismatched", {}).get("missing", ())
            return f"none called {', '.join(missing)}" if missing else "all of them"
        return _number(value) if not isinstance(value, str) else value
    if "unexpected_count" not in observed:
        return "nothing to judge"
    judged = observed["element_count"] - observed["missing_count"]
    if not observed["unexpected_count"]:
        return f"all {judged}" if judged else "none, as no document was kept"
    examples = ", ".join(repr(value) for value in observed.get("partial_unexpected_list", [])[:3])
    such = f", such as {examples}" if examples else ""
    return f"{observed['unexpected_count']} of {judged} others{such}"


def _number(value: Any) -> str:
    if value is None or value != value:  # NaN: the quantile or mean of nothing
        return "none, as no document was kept"
    return f"{float(value):g}"


def _details(dataset: Dataset, drift: DataDrift) -> dict[str, str]:
    """What is told beside the number, by expectation, when it is not met."""
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(dataset.rejected.items(), key=lambda item: -item[1]))
    columns = _some(sorted(dataset.columns)) or "not known"
    details = dict.fromkeys(("unreadable_rate", "short_rate", "reject_rate"), reasons)
    details["input_columns"] = f"the input's columns: {columns}"
    if drift.schema is not None:
        details["new_columns"] = _some(drift.schema.new)
        details["missing_columns"] = _some(drift.schema.missing)
        details["column_types"] = _some(drift.schema.types)
    return details


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
