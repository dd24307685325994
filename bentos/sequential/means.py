"""Sequential tests of means: of differences between paired answers, and between two versions' own values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np

from lake.records import Record

# What the bets on paired differences are tuned to: about an equal part of the default error budget.
_TUNED_ALPHA = 0.002
_MOST_BET = 0.5
# The asymptotic sequence is tightest after so many values of each version.
_TUNED_N = 100
MIN_VALUES = 10
_RATIOS = np.geomspace(0.02, 50, 629)  # 1.25 % apart


class PairedTest(Record):
    """Sequential test of the mean of differences in [-1, 1]; more is worse, and `effect` is that mean.

    The predictable plug-in empirical-Bernstein confidence sequence (Waudby-Smith & Ramdas, "Estimating means of bounded
    random variables by betting", JRSS-B 86, 2024, theorem 2) on x = (difference + 1) / 2. Exact for any distribution, as
    long as every difference has the same mean given those before it. `p_worse` and `p_fine` are those of this moment:
    they may rise again, and are as valid (each is 1 over an e-process).

    `bets` is the sum of lambda_t, `won` of lambda_t x_t, `paid` of v_t psi(lambda_t); `squares` of (x_t - mean_t)².
    """

    margin: float
    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    bets: float = 0.0
    won: float = 0.0
    paid: float = 0.0

    @property
    def n_champion(self) -> int:
        return self.n

    @property
    def n_challenger(self) -> int:
        return self.n

    @property
    def champion(self) -> float | None:
        """None: a difference tells nothing of either alone."""
        return None

    @property
    def challenger(self) -> float | None:
        return None

    @property
    def effect(self) -> float | None:
        return 2 * self.total / self.n - 1 if self.n else None

    def p_worse(self) -> float:
        return _p(self.won - self.bets * (self.margin + 1) / 2 - self.paid)

    def p_fine(self) -> float:
        return _p(self.bets * (self.margin + 1) / 2 - self.won - self.paid)

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """Of this moment, exactly as `p_worse` and `p_fine` are, within [-1, 1]."""
        if not self.n:
            return None
        middle, reach = self.won / self.bets, (self.paid - math.log(alpha)) / self.bets
        return max(-1.0, 2 * (middle - reach) - 1), min(1.0, 2 * (middle + reach) - 1)

    def updated(self, differences: Sequence[float]) -> Self:
        """The test after more differences, in their order. Raises ValueError for one outside [-1, 1]."""
        if not all(-1 <= difference <= 1 for difference in differences):
            raise ValueError(
                f"differences {[each for each in differences if not -1 <= each <= 1][:3]}, expected [-1, 1]"
            )
        n, total, squares, bets, won, paid = self.n, self.total, self.squares, self.bets, self.won, self.paid
        for difference in differences:
            x = (float(difference) + 1) / 2
            mean, variance = (0.5 + total) / (n + 1), (0.25 + squares) / (n + 1)
            bet = min(_MOST_BET, math.sqrt(2 * -math.log(_TUNED_ALPHA) / (variance * (n + 1) * math.log(n + 2))))
            bets, won, paid = bets + bet, won + bet * x, paid + (x - mean) ** 2 * (-math.log1p(-bet) - bet)
            n, total = n + 1, total + x
            squares += (x - (0.5 + total) / (n + 1)) ** 2
        return self.model_copy(
            update={"n": n, "total": total, "squares": squares, "bets": bets, "won": won, "paid": paid}
        )


class Moments(Record):
    """Number, mean, and sum of squared deviations from the mean (Welford)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def with_values(self, values: Sequence[float]) -> Self:
        if not values:
            return self
        added = np.asarray(values, dtype=np.float64)
        n, mean = len(added), float(added.mean())
        apart, total = mean - self.mean, self.n + n
        return self.model_copy(
            update={
                "n": total,
                "mean": self.mean + apart * n / total,
                "squares": self.squares + float(((added - mean) ** 2).sum()) + apart**2 * self.n * n / total,
            }
        )


class MeanTest(Record):
    """Sequential test of two means, each of a version's own values; `effect` is how much worse the challenger is.

    Points (`ratio` False): the difference of the means, challenger minus champion where higher is worse, else the other
    way round. `ratio`: challenger over champion where higher is worse, else champion over challenger; means of 0 and
    below have no ratio, and the test says nothing of them.

    An asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory
    and asymptotic confidence sequences", Annals of Statistics 52, 2024, the one-sided Gaussian mixture): it needs no
    bounds on the values, but enough of them: nothing is said before `MIN_VALUES` of each. The difference of two means,
    in units of its information 1/variance, is asymptotically a Brownian motion with drift whatever the sizes of both
    samples (Jennison & Turnbull, "Group sequential methods", 1999, ch. 3), which is what the sequence is applied to.
    `p_worse` and `p_fine` are those of this moment: they may rise again.
    """

    margin: float
    ratio: bool
    higher_is_worse: bool
    champion_moments: Moments = Moments()
    challenger_moments: Moments = Moments()

    @property
    def n_champion(self) -> int:
        return self.champion_moments.n

    @property
    def n_challenger(self) -> int:
        return self.challenger_moments.n

    @property
    def champion(self) -> float | None:
        return self.champion_moments.mean if self.n_champion else None

    @property
    def challenger(self) -> float | None:
        return self.challenger_moments.mean if self.n_challenger else None

    @property
    def effect(self) -> float | None:
        worse, better = self._sides()
        if not (worse.n and better.n):
            return None
        if self.ratio:
            return worse.mean / better.mean if worse.mean > 0 and better.mean > 0 else None
        return worse.mean - better.mean

    def p_worse(self) -> float:
        return self._p(self.margin, 1)

    def p_fine(self) -> float:
        return self._p(self.margin, -1)

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """Of this moment. A ratio's ends have a resolution of 1.25 %, from 0.02 to 50."""
        if self.effect is None or not self._says_anything():
            return None
        if self.ratio:
            return self._ratio_interval(alpha)
        information, n = self._information(1.0)
        if not information:
            return None
        reach = _reach(information, n, alpha)
        return self.effect - reach, self.effect + reach

    def updated(self, champion_values: Sequence[float], challenger_values: Sequence[float]) -> Self:
        """The test after more values of both. Raises ValueError for one that is no finite number."""
        if not all(map(math.isfinite, (*champion_values, *challenger_values))):
            raise ValueError("a value that is no finite number, expected finite ones")
        return self.model_copy(
            update={
                "champion_moments": self.champion_moments.with_values(champion_values),
                "challenger_moments": self.challenger_moments.with_values(challenger_values),
            }
        )

    def _sides(self) -> tuple[Moments, Moments]:
        """Whose mean is the higher one when the challenger is worse, and the other."""
        sides = self.challenger_moments, self.champion_moments
        return sides if self.higher_is_worse else sides[::-1]

    def _says_anything(self) -> bool:
        return min(self.n_champion, self.n_challenger) >= MIN_VALUES

    def _information(self, factor: float) -> tuple[float, float]:
        """1 / variance of (mean - factor * other mean), and how many values of each version would give as much.

        An arm's variance counts as at least half of the one around the common mean: ten equal values are no proof that
        all will be equal.
        """
        worse, better = self._sides()
        n = worse.n + better.n
        common = (worse.squares + better.squares + (worse.mean - better.mean) ** 2 * worse.n * better.n / n) / n
        of_worse, of_better = (max(side.squares / (side.n - 1), common / 2) for side in (worse, better))
        variance = of_worse / worse.n + factor**2 * of_better / better.n
        # Equal values alone tell nothing of how they vary.
        return (1 / variance, (of_worse + factor**2 * of_better) / variance) if variance > 0 else (0.0, 0.0)

    def _p(self, margin: float, sign: int) -> float:
        """Of "at most the margin" for sign 1, "at least" for -1."""
        if not self._says_anything() or (self.ratio and self.effect is None):
            return 1.0
        worse, better = self._sides()
        factor, allowed = (margin, 0.0) if self.ratio else (1.0, margin)
        information, n = self._information(factor)
        return _p_normal(sign * (worse.mean - factor * better.mean - allowed), information, n)

    def _ratio_interval(self, alpha: float) -> tuple[float, float]:
        ratios = sorted((*_RATIOS.tolist(), self.margin))
        lower, upper = 0.0, math.inf
        for ratio in ratios:
            if self._p(ratio, 1) > alpha:
                break
            lower = ratio
        for ratio in reversed(ratios):
            if self._p(ratio, -1) > alpha:
                break
            upper = ratio
        return lower, upper


def _p(log_e: float) -> float:
    return math.exp(-max(0.0, log_e))


def _mixing() -> float:
    """rho² of the Gaussian mixture that is tightest at `_TUNED_N` (Waudby-Smith et al. 2024, appendix B.2)."""
    twice = -2 * math.log(_TUNED_ALPHA)
    return (twice + math.log(1 + twice)) / _TUNED_N


def _reach(information: float, n: float, alpha: float) -> float:
    """How far the true mean may be on one side: S_n <= sqrt(2 (n rho² + 1) / rho² log(1 + sqrt(n rho² + 1) / (2 alpha)))."""
    mixed = n * _mixing()
    return math.sqrt(2 * (mixed + 1) / mixed * math.log1p(math.sqrt(mixed + 1) / (2 * alpha)) / information)


def _p_normal(excess: float, information: float, n: float) -> float:
    """The alpha at which `_reach` is just `excess`."""
    mixed = n * _mixing()
    exponent = excess**2 * information * mixed / (2 * (mixed + 1))
    if excess <= 0 or exponent <= 0:
        return 1.0
    return min(1.0, math.sqrt(mixed + 1) / 2 * math.exp(-exponent) / -math.expm1(-exponent))
