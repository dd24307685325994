"""E-processes against a grid of possible effects, and the confidence sequence that they turn into."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np

from bentos.sequential.e_values import UPLIFTS, Floats, log_mixture
from lake.records import Record

_DECIMALS = 1e6  # of a stored logarithm, rounded down: what is lost is evidence, never validity


class Evidence(Record):
    """For each effect of `grid` (ascending), what speaks against "it is at most that", and against "at least that".

    `worse` and `fine` hold the log e-values `[n_grid, n_uplifts]` of both; `peak_worse` and `peak_fine` the highest
    that their mixtures have been, `[n_grid]`, so that p-values only ever fall.
    """

    grid: tuple[float, ...]
    worse: tuple[tuple[float, ...], ...]
    fine: tuple[tuple[float, ...], ...]
    peak_worse: tuple[float, ...]
    peak_fine: tuple[float, ...]

    @classmethod
    def none(cls, grid: Iterable[float]) -> Self:
        effects = tuple(sorted(set(grid)))
        nothing = ((0.0,) * len(UPLIFTS),) * len(effects)
        return cls(
            grid=effects,
            worse=nothing,
            fine=nothing,
            peak_worse=(0.0,) * len(effects),
            peak_fine=(0.0,) * len(effects),
        )

    def multiplied(self, log_worse: Floats, log_fine: Floats) -> Self:
        """The same after one more block with these log e-values, `[n_grid, n_uplifts]` each."""
        worse = _rounded_down(np.array(self.worse) + log_worse)
        fine = _rounded_down(np.array(self.fine) + log_fine)
        return self.model_copy(
            update={
                "worse": tuple(map(tuple, worse.tolist())),
                "fine": tuple(map(tuple, fine.tolist())),
                "peak_worse": _peaks(self.peak_worse, worse),
                "peak_fine": _peaks(self.peak_fine, fine),
            }
        )

    def p_worse(self, effect: float) -> float:
        """Anytime-valid p-value of "at most `effect`", which is of the grid: the largest of all of the grid up to it.

        The nulls are nested, so the largest is as valid as its own, and it agrees with the interval.
        """
        against = [peak for of, peak in zip(self.grid, self.peak_worse, strict=True) if of <= effect]
        return math.exp(-min(against))

    def p_fine(self, effect: float) -> float:
        against = [peak for of, peak in zip(self.grid, self.peak_fine, strict=True) if of >= effect]
        return math.exp(-min(against))

    def interval(self, alpha: float, least: float, most: float) -> tuple[float, float]:
        """Up to where the grid is refuted from below, and from above; `least` and `most` where nothing is."""
        needed = -math.log(alpha)
        lower = _last_refuted(self.grid, self.peak_worse, needed)
        upper = _last_refuted(self.grid[::-1], self.peak_fine[::-1], needed)
        return (least if lower is None else lower, most if upper is None else upper)


def _last_refuted(grid: Sequence[float], peaks: Sequence[float], needed: float) -> float | None:
    """The last effect before the first that is not refuted.

    Only the true effect's next neighbour must be refuted for the end to be wrong, which has a chance of alpha, however
    fine the grid is.
    """
    found = None
    for effect, peak in zip(grid, peaks, strict=True):
        if peak < needed:
            break
        found = effect
    return found


def _rounded_down(values: Floats) -> Floats:
    rounded: Floats = np.floor(values * _DECIMALS) / _DECIMALS
    return rounded


def _peaks(before: Sequence[float], log_e: Floats) -> tuple[float, ...]:
    return tuple(_rounded_down(np.maximum(np.array(before), log_mixture(log_e))).tolist())
