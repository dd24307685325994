"""How a challenger replaces the champion: the steps of a rollout, and what it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lake.recipe.rollout_metrics import Direction, Metric, Stage, metric
from lake.recipe.section import Section


class RolloutStep(Section):
    """One step of the plan. `share` is mirrored traffic for shadow, the challenger's live traffic otherwise."""

    stage: Stage
    share: Annotated[float, Field(gt=0, le=1)]
    min_requests: int = Field(default=30, ge=1, description="answered by the challenger before a verdict")
    min_duration_s: float = Field(default=0, ge=0, description="no verdict to go on before that")
    max_duration_s: float = Field(default=3600, gt=0, description="without a verdict by then: `on_inconclusive`")
    sticky: Literal["user", "none"] = Field(
        default="none",
        description="user: whoever names one (body's `user`, `x-user`, cookie) stays with a version. Checks take requests as "
        "independent, and a user's own are not: with few users, or users who differ much, they err more often",
    )
    pause: Literal["approval"] | None = Field(
        default=None, description="approval: the next step waits for 'tidemill rollout approve'"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.min_duration_s > self.max_duration_s:
            raise ValueError(f"min_duration_s ({self.min_duration_s:g}) of at most max_duration_s")
        if self.stage != "shadow" and self.share >= 1:
            raise ValueError(
                "a share below 1: without a champion's concurrent answers there is nothing to compare with"
            )
        return self

    @property
    def is_sticky(self) -> bool:
        return self.sticky == "user"


class RolloutCheck(Section):
    """One thing that the challenger must not be worse in, by more than `margin`."""

    metric: str = Field(description="docs/rollout-metrics.md has all of them")
    margin: float | None = Field(
        default=None,
        description="how much worse is still good enough: points as a share for rates and scores, a factor for durations "
        "and costs; unset: the metric's own",
    )
    better: Direction | None = Field(default=None, description="the good direction; unset: the metric's own")
    severity: Literal["fail", "warn"] = Field(default="fail", description="fail: rolls back; warn: is only told")
    min_samples: int = Field(default=10, ge=1, description="of each version before the check has a say in going on")
    proof: bool = Field(
        default=False,
        description="go on only once it is proven that the challenger is not worse, which takes far more traffic",
    )
    url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="of a business metric: asked for values; see docs/rollout-metrics.md",
    )
    interval_s: float = Field(default=10, gt=0, description="how often `url` is asked")

    @model_validator(mode="after")
    def _measurable(self) -> Self:
        found = metric(self.metric)
        if (self.url is not None) != self.metric.startswith("business:"):
            raise ValueError(f"a url for business metrics, and for no other; {self.metric} has {self.url or 'none'}")
        if self.margin is not None and found.unit == "ratio" and self.margin < 1:
            raise ValueError(f"a factor of at least 1 as the margin of {self.metric}")
        if self.margin is not None and found.unit != "ratio" and not 0 <= self.margin <= 1:
            raise ValueError(f"a number from 0 to 1 as the margin of {self.metric}")
        return self

    @property
    def of(self) -> Metric:
        return metric(self.metric)

    @property
    def allowed(self) -> float:
        return self.of.margin if self.margin is None else self.margin

    @property
    def direction(self) -> Direction:
        return self.better or self.of.better


DEFAULT_CHECKS = (
    RolloutCheck(metric="error_rate"),
    RolloutCheck(metric="latency_p50"),
    RolloutCheck(metric="latency_p95", severity="warn"),
    RolloutCheck(metric="first_token_p50", severity="warn"),
    RolloutCheck(metric="refusal_rate"),
    RolloutCheck(metric="repetition"),
    RolloutCheck(metric="toxicity"),
    RolloutCheck(metric="language"),
    RolloutCheck(metric="answer_length", severity="warn"),
    RolloutCheck(metric="agreement", severity="warn"),
    RolloutCheck(metric="cpu_s", severity="warn"),
)


_DAY_S = 86_400.0
# Five minutes a step let a busy model's tests notice two points more errors; a day lets a quiet one get its requests.
DEFAULT_STEPS = (
    RolloutStep(stage="shadow", share=1.0, min_requests=200, min_duration_s=60, max_duration_s=_DAY_S),
    RolloutStep(stage="ab", share=0.5, min_requests=200, min_duration_s=300, max_duration_s=_DAY_S),
    RolloutStep(stage="canary", share=0.05, min_requests=50, min_duration_s=300, max_duration_s=_DAY_S),
    RolloutStep(stage="canary", share=0.25, min_requests=200, min_duration_s=300, max_duration_s=_DAY_S),
    RolloutStep(stage="canary", share=0.5, min_requests=300, min_duration_s=300, max_duration_s=_DAY_S),
)


class Rollout(Section):
    """How a challenger replaces the champion. The first version of a model goes straight to full."""

    steps: tuple[RolloutStep, ...] = DEFAULT_STEPS
    checks: tuple[RolloutCheck, ...] = DEFAULT_CHECKS
    error_budget: float = Field(
        default=0.01,
        gt=0,
        le=0.2,
        description="chance that a challenger no worse than the champion is rolled back by any check, however often "
        "it is looked at; spread over the checks that roll back",
    )
    on_inconclusive: Literal["roll_back", "hold"] = Field(
        default="roll_back", description="what a step does that has no verdict by its max_duration_s"
    )
    cool_down_s: float = Field(default=300, ge=0, description="after a rollback no other challenger begins for so long")
    retain_champion_s: float = Field(
        default=600,
        ge=0,
        description="the last champion's replica stays so long, for an instant 'tidemill rollout undo'",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        order = {"shadow": 0, "ab": 1, "canary": 2}
        kinds = [order[step.stage] for step in self.steps]
        if kinds != sorted(kinds):
            raise ValueError("stages in the order shadow, ab, canary")
        shares = [step.share for step in self.steps if step.stage == "canary"]
        if shares != sorted(shares):
            raise ValueError("canary shares that grow")
        names = [check.metric for check in self.checks]
        if len(names) != len(set(names)):
            raise ValueError(
                f"one check a metric, twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}"
            )
        return self

    def checks_of(self, stage: Stage) -> Sequence[RolloutCheck]:
        """The checks that can be compared in a stage."""
        return [check for check in self.checks if stage in check.of.stages]

    @property
    def check_budget(self) -> float:
        """The part of the error budget that one check may spend in the whole rollout: equal parts (Bonferroni).

        A check that only warns has the same: a warning at ten times the rate of verdicts would be read by nobody.
        """
        return self.error_budget / max(1, sum(check.severity == "fail" for check in self.checks))
