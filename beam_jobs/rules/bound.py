"""One rule of a published set: a measure, and the bounds that it has to keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Bound(NamedTuple):
    """`measure` lies in [`at_least`, `at_most`], or the document is rejected with `reason`."""

    reason: str
    measure: str
    at_least: float = float("-inf")
    at_most: float = float("inf")


def first_broken(measures: Mapping[str, float], bounds: Iterable[Bound]) -> tuple[str, str] | None:
    """`(reason, detail)` of the first bound that is broken, its detail "value, bound"; None when all hold."""
    for bound in bounds:
        value = measures[bound.measure]
        if value < bound.at_least:
            return bound.reason, f"{value:.4g}, at least {bound.at_least:g}"
        if value > bound.at_most:
            return bound.reason, f"{value:.4g}, at most {bound.at_most:g}"
    return None
