"""What every sequential test of a challenger against its champion can tell, at any time."""

from __future__ import annotations

from typing import Protocol


class SequentialTest(Protocol):
    """How much worse a challenger is (`effect`), against what is allowed (`margin`, in the same unit).

    Tests are immutable; `updated(…)` of each returns the one with more data. What they tell holds at every look at
    once (Ville's inequality), so they may be asked after every request and stopped for any reason.
    """

    @property
    def margin(self) -> float: ...

    @property
    def n_champion(self) -> int:
        """What has been seen of the champion: requests, durations or values."""

    @property
    def n_challenger(self) -> int: ...

    @property
    def champion(self) -> float | None:
        """Estimate in the metric's own unit; None before the first."""

    @property
    def challenger(self) -> float | None: ...

    @property
    def effect(self) -> float | None:
        """Estimate of how much worse the challenger is; more is worse. None while there is nothing to compare."""

    def p_worse(self) -> float:
        """Anytime-valid p-value of `effect <= margin`: if that is true, it ever falls to alpha with at most that chance."""

    def p_fine(self) -> float:
        """Anytime-valid p-value of `effect >= margin`: a small one proves that the challenger is not worse."""

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """Confidence sequence of the effect: each end is wrong at any look ever with a chance of at most alpha.

        The lower end is at least the margin exactly when `p_worse() <= alpha`, the upper at most the margin exactly
        when `p_fine() <= alpha`, up to the resolution that a test names. None while it knows nothing.
        """
