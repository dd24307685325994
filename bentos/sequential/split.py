"""Was the traffic split as planned? A test of sample-ratio mismatch that may be watched at any time."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
from scipy.special import betaln

from bentos.sequential.e_values import Floats, Numbers
from lake.records import Record

# The alternatives: half of them gather around a share that lies so many standard deviations of one request,
# sqrt(s (1 - s)), below the planned s, half above: 2 points at one half. Each half is Beta(c m, c (1 - m)) around its
# middle m, and so covers every other share, too. Both are chosen by simulation for the earliest notice of 48 against
# 52: centred at the planned share itself, as in the paper, the mixture needs a tenth more requests.
SHIFT = 0.04
CONCENTRATION = 5000.0


class SplitTest(Record):
    """Sequential test of "each request went to the challenger with probability `share`", with `share` in (0, 1).

    The evidence is a mixture of beta-binomials over the planned binomial likelihood (Lindon & Malek, "Anytime-valid
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
        peak = max(self.peak_log_e, float(log_e(n_a, n_b, self.share)))
        return self.model_copy(update={"n_champion": n_a, "n_challenger": n_b, "peak_log_e": peak})


def log_e(n_champion: Numbers, n_challenger: Numbers, share: Numbers) -> Floats:
    """Log of the mixture's likelihood over the planned one's. Element-wise."""
    shift = SHIFT * np.sqrt(share * (1 - share))
    halves = [_log_mixture(n_champion, n_challenger, middle) for middle in (share - shift, share + shift)]
    mixed: Floats = np.logaddexp(*halves) - math.log(2)
    return mixed - n_champion * np.log1p(-share) - n_challenger * np.log(share)


def _log_mixture(n_champion: Numbers, n_challenger: Numbers, middle: Numbers) -> Floats:
    inside = np.clip(middle, 1 / CONCENTRATION, 1 - 1 / CONCENTRATION)
    a, b = CONCENTRATION * (1 - inside), CONCENTRATION * inside
    mixed: Floats = betaln(a + n_champion, b + n_challenger) - betaln(a, b)
    return mixed
