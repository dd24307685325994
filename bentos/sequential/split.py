"""Was the traffic split as planned? A test of sample-ratio mismatch that may be watched at any time."""

from __future__ import annotations

import math
from typing import Self

from lake.records import Record

# How closely the alternatives gather around the planned share s: Beta(c s, c (1 - s)), whose standard deviation is
# sqrt(s (1 - s) / (c + 1)), 1.6 points at one half. Chosen by simulation for the earliest notice of 48 against 52.
CONCENTRATION = 1000.0


class SplitTest(Record):
    """Sequential test of "each request went to the challenger with probability `share`", with `share` in (0, 1).

    The evidence is a beta-binomial mixture over the planned binomial likelihood (Lindon & Malek, "Anytime-valid
    inference for multinomial count data", NeurIPS 2022, with two outcomes), a martingale that starts at 1, so it ever
    reaches 1/p with at most a chance of p. Another share is another test: begin a new one with each step. Requests are
    taken as assigned independently; where whole users are assigned, count users.
    """

    share: float
    n_champion: int = 0
    n_challenger: int = 0
    peak_log_e: float = 0.0

    def p(self) -> float:
        """Anytime-valid p-value of "split as planned"; it only ever falls."""
        return math.exp(-self.peak_log_e)

    def updated(self, n_champion: int, n_challenger: int) -> Self:
        """The test after so many more requests were assigned. Raises ValueError for a negative number."""
        if min(n_champion, n_challenger) < 0:
            raise ValueError(f"{n_champion} and {n_challenger} more requests, expected 0 or more")
        n_a, n_b = self.n_champion + n_champion, self.n_challenger + n_challenger
        peak = max(self.peak_log_e, log_e(n_a, n_b, self.share))
        return self.model_copy(update={"n_champion": n_a, "n_challenger": n_b, "peak_log_e": peak})


def log_e(n_champion: int, n_challenger: int, share: float, concentration: float = CONCENTRATION) -> float:
    """Log of the mixture's likelihood over the planned one's."""
    a, b = concentration * (1 - share), concentration * share
    mixed = _log_beta(a + n_champion, b + n_challenger) - _log_beta(a, b)
    return mixed - n_champion * math.log1p(-share) - n_challenger * math.log(share)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
