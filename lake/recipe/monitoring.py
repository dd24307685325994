"""What happens to a model that is live: logging, drift, erasure."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lake.recipe.section import Section, Share


class Monitoring(Section):
    """Prediction logging, drift detection and what follows from it."""

    log_share: Share = Field(default=1.0, description="share of requests logged")
    reference_requests: int = Field(default=500, ge=20)
    window_requests: int = Field(default=500, ge=20)
    max_p_value: float = Field(default=0.005, gt=0, lt=1, description="of the MMD permutation test")
    permutations: int = Field(default=2_000, ge=200)
    confirm_windows: int = Field(default=2, ge=1, description="consecutive drifted windows that confirm drift")
    interval_s: float = Field(default=60, gt=0)
    retrain: bool = True


class Erasure(Section):
    """What follows for the versions that have seen erased documents. The data itself is erased in any case."""

    rebuild: Literal["next", "now", "never"] = Field(
        default="next",
        description="next: the next training starts from the base model; now: and begins at once; never: neither",
    )
