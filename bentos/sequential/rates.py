"""Is the challenger's rate (of errors) above the champion's by more than a margin?"""

from __future__ import annotations

from typing import Self

import numpy as np

from bentos.sequential.e_values import UPLIFTS, alternative, log_e_value, smoothed_rate
from bentos.sequential.evidence import Evidence
from lake.records import Record

# Differences of rates at which the confidence sequence is read off, on both sides of 0.
_STEPS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75)
# What is assumed of a champion before anything is known of it.
PRIOR_RATE = 0.02


class RateTest(Record):
    """Sequential test of two rates; `effect` is the challenger's minus the champion's, `margin` in [-1, 1].

    A block counts once it holds requests of both; until then it is `pending`. That depends on who was asked, never on
    how it answered, so the e-variables stay valid. The alternatives are the champion's smoothed rate in earlier blocks,
    plus margin, plus each of `UPLIFTS`, in equal parts.

    Rates may change from block to block, and the split too: only the difference within a block counts. Requests of one
    version within a block are taken as independent given the block's rates. Both versions' answers to the *same*
    requests (shadow) need not be: if they fail together, validity is kept. E is a product f(k_a) g(k_b) with f
    decreasing in the champion's errors and g increasing in the challenger's, so for positively associated k_a, k_b
    E[f g] = E[f] E[g] + Cov(f, g) <= E[f] E[g] <= 1.
    """

    margin: float
    n_champion: int = 0
    k_champion: int = 0
    n_challenger: int = 0
    k_challenger: int = 0
    pending: tuple[int, int, int, int] = (0, 0, 0, 0)
    evidence: Evidence | None = None

    @property
    def champion(self) -> float | None:
        return self.k_champion / self.n_champion if self.n_champion else None

    @property
    def challenger(self) -> float | None:
        return self.k_challenger / self.n_challenger if self.n_challenger else None

    @property
    def effect(self) -> float | None:
        if self.champion is None or self.challenger is None:
            return None
        return self.challenger - self.champion

    def p_worse(self) -> float:
        return self.evidence.p_worse(self.margin) if self.evidence else 1.0

    def p_fine(self) -> float:
        return self.evidence.p_fine(self.margin) if self.evidence else 1.0

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """At the resolution of the grid, whose steps grow from a tenth of a point."""
        return self.evidence.interval(alpha, -1.0, 1.0) if self.evidence else None

    def updated(self, n_champion: int, k_champion: int, n_challenger: int, k_challenger: int) -> Self:
        """The test after one more block. Raises ValueError unless 0 <= k <= n for both."""
        block = (n_champion, k_champion, n_challenger, k_challenger)
        if not (0 <= k_champion <= n_champion and 0 <= k_challenger <= n_challenger):
            raise ValueError(f"{k_champion} of {n_champion} and {k_challenger} of {n_challenger}, expected 0 <= k <= n")
        n_a, k_a, n_b, k_b = (sum(pair) for pair in zip(self.pending, block, strict=True))
        total = self.model_copy(
            update={
                "n_champion": self.n_champion + n_champion,
                "k_champion": self.k_champion + k_champion,
                "n_challenger": self.n_challenger + n_challenger,
                "k_challenger": self.k_challenger + k_challenger,
                "pending": (n_a, k_a, n_b, k_b),
            }
        )
        return total._closed() if n_a and n_b else total

    def _closed(self) -> Self:
        """The pending block enters the evidence."""
        n_a, k_a, n_b, k_b = self.pending
        before = self.evidence or Evidence.none(
            (*(-step for step in _STEPS), 0.0, *_STEPS, self.margin),
        )
        margins = np.array(before.grid)[:, None]
        rate = smoothed_rate(self.k_champion - k_a, self.n_champion - n_a, PRIOR_RATE)
        worse, fine = (
            log_e_value(n_a, k_a, n_b, k_b, rate, alternative(rate, margins, sign * UPLIFTS), margins, worse=sign > 0)
            for sign in (1, -1)
        )
        return self.model_copy(update={"evidence": before.multiplied(worse, fine), "pending": (0, 0, 0, 0)})
