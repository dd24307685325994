"""How a challenger replaces the champion."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lake.recipe.section import Section, Share


class RolloutStep(Section):
    """One step of the plan. `share` is mirrored traffic for shadow, live traffic otherwise."""

    stage: Literal["shadow", "ab", "canary"]
    share: Annotated[float, Field(gt=0, le=1)]
    min_requests: int = Field(default=30, ge=1, description="answered by the challenger before a verdict")
    max_duration_s: float = Field(default=3600, gt=0, description="without a verdict by then: roll back")


class Rollout(Section):
    """How a challenger replaces the champion. The first version of a model goes straight to full."""

    steps: tuple[RolloutStep, ...] = (
        RolloutStep(stage="shadow", share=1.0),
        RolloutStep(stage="ab", share=0.5),
        RolloutStep(stage="canary", share=0.75),
    )
    max_error_rate_increase: Share = Field(default=0.02, description="over the champion's, in points")
    max_latency_ratio: float = Field(default=2.0, gt=0, description="challenger's mean latency over the champion's")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        order = {"shadow": 0, "ab": 1, "canary": 2}
        kinds = [order[step.stage] for step in self.steps]
        if kinds != sorted(kinds):
            raise ValueError("stages in the order shadow, ab, canary")
        shares = [step.share for step in self.steps if step.stage == "canary"]
        if shares != sorted(shares):
            raise ValueError("canary shares that grow")
        return self
