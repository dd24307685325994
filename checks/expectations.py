"""The custom expectation of the suites, and how one gets its name, its severity and its words."""

from __future__ import annotations

from typing import Any, ClassVar

import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnAggregateExpectation, Expectation
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.metrics import ColumnAggregateMetricProvider, column_aggregate_value

from lake.recipe import CheckRules

_SEVERITY = {"warn": FailureSeverity.WARNING, "fail": FailureSeverity.CRITICAL}


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


class Named:
    """Makes expectations by the names that `CheckRules.severity` knows, each with its description in words."""

    def __init__(self, rules: CheckRules) -> None:
        self.rules = rules

    def __call__(self, name: str, kind: type[Expectation], described: str, **bounds: Any) -> Expectation:
        """`described` reads "what: expected …". Raises KeyError for a name that has no severity."""
        severity = _SEVERITY[self.rules.severity_of(name)]
        return kind(description=described, severity=severity, meta={"name": name}, **bounds)

    def at_least(self, name: str, column: str, bound: float, what: str) -> Expectation:
        described = f"{what}: expected at least {bound}"
        return self(name, gxe.ExpectColumnMinToBeBetween, described, column=column, min_value=bound)

    def at_most(self, name: str, column: str, bound: float, what: str) -> Expectation:
        described = f"{what}: expected at most {bound}"
        return self(name, gxe.ExpectColumnMaxToBeBetween, described, column=column, max_value=bound)

    def quantile(self, name: str, column: str, quantile: float, described: str, **bounds: float) -> Expectation:
        return self(name, ExpectColumnQuantileToBeBetween, described, column=column, quantile=quantile, **bounds)
