"""The Great Expectations suite of one drop: bounds from the recipe, each with its expectation in words."""

from __future__ import annotations

from typing import Any, ClassVar

import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnAggregateExpectation, Expectation
from great_expectations.expectations.metrics import ColumnAggregateMetricProvider, column_aggregate_value

from lake.recipe import Recipe

# A split by stable hash may come out empty by chance: with 10 documents expected, in e^-10 (1 in 22,000) of drops.
_EXPECTED_DOCUMENTS = 10
# Cleaning keeps a document whose language is uncertain (code, tables); many of them are another matter.
_LANGUAGE_SHARE = 0.9


class ColumnQuantile(ColumnAggregateMetricProvider):  # type: ignore[misc]  # the library is untyped here
    """The built-in quantile metric answers with numpy booleans that the checkpoint cannot write as JSON."""

    metric_name = "column.tidemill_quantile"
    value_keys = ("quantile",)

    # A class method, once the library has decorated it.
    @column_aggregate_value(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]  # see above
    def _pandas(cls, column: pd.Series[Any], quantile: float = 0.5, **_: Any) -> float:  # noqa: N805
        return float(pd.to_numeric(column).quantile(quantile))


class ExpectColumnQuantileToBeBetween(ColumnAggregateExpectation):  # type: ignore[misc]  # see above
    """One quantile of a column lies between two bounds (inclusive). A column without values fails."""

    quantile: float = 0.5
    min_value: float | None = None
    max_value: float | None = None
    metric_dependencies: ClassVar[tuple[str, ...]] = (ColumnQuantile.metric_name,)
    success_keys: ClassVar[tuple[str, ...]] = ("quantile", "min_value", "max_value")

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any] | None = None,  # noqa: ARG002  (the library calls with all three)
        execution_engine: Any = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        value = metrics[ColumnQuantile.metric_name]
        # Comparisons with NaN are False, so both bounds refuse it.
        above = self.min_value is None or value >= self.min_value
        below = self.max_value is None or value <= self.max_value
        return {"success": above and below, "result": {"observed_value": value}}


def recipe_expectations(recipe: Recipe, n_kept: int) -> list[Expectation]:
    """What the recipe expects of `checks.data.metrics_frame`. Each `description` reads "name: expected …"."""
    bounds, rules = recipe.check, recipe.prepare
    expectations = [
        _at_least("n_kept", bounds.min_documents, "kept documents"),
        gxe.ExpectColumnSumToBeBetween(
            column="kept",
            min_value=n_kept,
            max_value=n_kept,
            description=f"documents with metrics: expected {n_kept}, one for each kept document",
        ),
        gxe.ExpectColumnValuesToBeUnique(column="id", description="document ids: expected every id once"),
        gxe.ExpectColumnValuesToBeBetween(
            column="n_characters",
            min_value=1,
            max_value=2 * rules.max_characters,  # the splitter cuts at a paragraph's end, redaction adds placeholders
            description=f"document length: expected 1 to {2 * rules.max_characters} characters",
        ),
        ExpectColumnQuantileToBeBetween(
            column="n_words",
            quantile=0.5,
            min_value=bounds.min_median_words,
            description=f"median length: expected at least {bounds.min_median_words} words",
        ),
        ExpectColumnQuantileToBeBetween(
            column="n_words",
            quantile=0.95,
            max_value=bounds.max_p95_words,
            description=f"95th percentile of length: expected at most {bounds.max_p95_words} words",
        ),
        _at_most("duplicate_rate", bounds.max_duplicate_rate, "duplicate rate"),
        _at_most("reject_rate", bounds.max_reject_rate, "rate of documents rejected for other reasons"),
        gxe.ExpectColumnMeanToBeBetween(
            column="leaks",
            max_value=bounds.max_pii_leak_rate,
            description=f"documents with personal data left in: expected a rate of at most {bounds.max_pii_leak_rate}",
        ),
        _at_least("letters_share", rules.min_letters, "share of letters"),
        _at_most("repetition", rules.max_repetition, "share of repeated text"),
        _at_least("n_train", 1, "documents in split train"),
    ]
    for split, share in (("validation", rules.validation_share), ("test", rules.test_share)):
        if n_kept * share >= _EXPECTED_DOCUMENTS:
            expectations.append(_at_least(f"n_{split}", 1, f"documents in split {split}"))
    if rules.languages:
        listed = ", ".join(rules.languages)
        expectations.append(
            gxe.ExpectColumnValuesToBeInSet(
                column="lang",
                value_set=list(rules.languages),
                mostly=_LANGUAGE_SHARE,
                description=f"language: expected {listed} for at least {_LANGUAGE_SHARE:.0%} of documents",
            )
        )
    return expectations


def _at_least(column: str, bound: float, name: str) -> Expectation:
    return gxe.ExpectColumnMinToBeBetween(
        column=column, min_value=bound, description=f"{name}: expected at least {bound}"
    )


def _at_most(column: str, bound: float, name: str) -> Expectation:
    return gxe.ExpectColumnMaxToBeBetween(
        column=column, max_value=bound, description=f"{name}: expected at most {bound}"
    )
