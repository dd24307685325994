"""An experiment: two arms of one model's traffic compared, which promotes nobody. One YAML file describes one."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from lake.recipe.parse import parsed
from lake.recipe.rollout import Rollout, RolloutCheck, RolloutStep
from lake.recipe.rollout_metrics import Direction, metric
from lake.recipe.section import Section

# Of JSON over the wire and of environment variables, which hold 128 KiB each.
MAX_PROMPT_CHARACTERS = 8_000
Precision = Literal["int8", "fp32"]


class ArmSampling(Section):
    """What a replica takes where a request leaves it open."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)


class Arm(Section):
    """One side of an experiment. What is unset is as the champion serves."""

    weight: float = Field(default=0.5, gt=0, lt=1, description="share of the traffic; both add up to 1")
    version: str | None = Field(default=None, pattern=r"^v[1-9]\d*$", description="a packaged version; unset: champion")
    system_prompt: str | None = Field(
        default=None, min_length=1, max_length=MAX_PROMPT_CHARACTERS, description="of chats that bring none"
    )
    sampling: ArmSampling = ArmSampling()
    precision: Precision | None = Field(default=None, description="unset: as the version was exported")

    @field_validator("system_prompt")
    @classmethod
    def _possible(cls, prompt: str | None) -> str | None:
        if prompt is not None and "\0" in prompt:
            raise ValueError("a text without NUL")
        return prompt

    @property
    def changes(self) -> tuple[str, ...]:
        """The fields that make it another thing than the champion as it is, but for its version."""
        told = self.model_dump(exclude={"weight", "version"}, exclude_defaults=True)
        return tuple(told)


class Arms(Section):
    a: Arm = Arm()
    b: Arm = Arm()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.a.weight + self.b.weight
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"weights that add up to 1: a {self.a.weight:g} + b {self.b.weight:g} is {total:g}")
        if self.a.changes:
            raise ValueError(
                f"arm a as it serves now, without {', '.join(self.a.changes)}: put what is to be compared into arm b"
            )
        return self


class Compared(Section):
    """One metric that the arms are compared by. A name alone stands for the metric with its defaults."""

    metric: str = Field(description="error_rate, latency_p50, first_token_p50, feedback, cpu_s, business:<name> …")
    better: Direction | None = Field(default=None, description="the good direction; unset: the metric's own")
    alike_within: float | None = Field(
        default=None,
        description="a difference that does not matter: points as a share, or a factor; the arms are alike once it is "
        "proven to be smaller; unset: no difference is too small to be looked for",
    )
    stop_when_worse_by: float | None = Field(
        default=None, description="ends the experiment once arm b is proven to be worse by more than that"
    )
    min_samples: int = Field(default=10, ge=1, description="of each arm before anything is concluded")
    url: str | None = Field(default=None, pattern=r"^https?://", description="of a business metric: asked for values")
    interval_s: float = Field(default=10, gt=0, description="how often `url` is asked")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"metric": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        found = metric(self.metric)
        if "ab" not in found.stages:
            raise ValueError(
                f"a metric of live traffic: {self.metric} compares two answers to one request, which only a shadow has"
            )
        if "near" in (self.better, found.better):
            raise ValueError("lower or higher as the good direction")
        if self.alike_within is not None and self.alike_within <= self.neutral:
            wanted = "a factor above 1" if found.unit == "ratio" else "a share above 0"
            raise ValueError(f"{wanted} as alike_within of {self.metric}")
        self.check()  # raises ValueError for what a rollout could not be judged by either
        return self

    @property
    def neutral(self) -> float:
        """The effect of two arms that are the same."""
        return 1.0 if metric(self.metric).unit == "ratio" else 0.0

    def check(self) -> RolloutCheck:
        """The same as a check: its margin is what ends the experiment, or no difference at all."""
        stops = self.stop_when_worse_by is not None
        return RolloutCheck(
            metric=self.metric,
            margin=self.stop_when_worse_by if stops else self.neutral,
            better=self.better,
            severity="fail" if stops else "warn",
            min_samples=self.min_samples,
            url=self.url,
            interval_s=self.interval_s,
        )


DEFAULT_METRICS = (
    Compared(metric="error_rate", alike_within=0.01, stop_when_worse_by=0.05),
    Compared(metric="latency_p50", alike_within=1.25),
    Compared(metric="cpu_s", alike_within=1.25),
)


class Experiment(Section):
    """Two arms of one model's traffic. Arm a is what serves now."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?$")
    model: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")
    arms: Arms = Arms()
    metrics: tuple[Compared, ...] = DEFAULT_METRICS
    min_requests: int = Field(default=200, ge=1, description="answered by each arm before it ends")
    max_duration_s: float = Field(default=86_400, gt=0, description="it ends then, decided or not")
    sticky: Literal["user", "none"] = Field(
        default="none",
        description="user: whoever names one stays with an arm; metrics take a user's requests as independent, which they "
        "are not quite",
    )
    error_budget: float = Field(
        default=0.05,
        gt=0,
        le=0.2,
        description="chance that any of the intervals ever misses the truth, however often they are looked at",
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [compared.metric for compared in self.metrics]
        if not names:
            raise ValueError("at least one metric")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"each metric once; twice: {', '.join(twice)}")
        return self

    def plan(self) -> Rollout:
        """The rollout plan that gathers its evidence: one A/B step, and nothing after it."""
        step = RolloutStep(
            stage="ab",
            share=self.arms.b.weight,
            min_requests=self.min_requests,
            max_duration_s=self.max_duration_s,
            sticky=self.sticky,
        )
        return Rollout(
            steps=(step,),
            checks=tuple(compared.check() for compared in self.metrics),
            error_budget=self.error_budget,
            cool_down_s=0,
            retain_champion_s=0,
        )

    @property
    def bound_alpha(self) -> float:
        """What one end of one metric's interval may spend of the error budget: equal parts (Bonferroni)."""
        return self.error_budget / (2 * len(self.metrics))


def parse_experiment(text: str, where: str) -> Experiment:
    """Parse YAML into an experiment. Raises RecipeError that names the field, the value and what is allowed."""
    return parsed(Experiment, text, where, "correct the experiment; docs/experiments.md shows every field")
