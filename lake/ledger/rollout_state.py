"""One rollout as the ledger has it, the replicas that should be running, and what others have seen of a rollout."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from lake.recipe import Experiment, RolloutStep
from lake.recipe import Rollout as RolloutPlan


class Replica(BaseModel):
    """A server process that should be running: what to serve, where, with which extra environment."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: str
    tag: str
    port: int
    environment: dict[str, str]


class RolloutState(BaseModel):
    """One rollout. `step_index` is -1 until the challenger is ready.

    Of kind `experiment` its challenger is a variant of a version under a name of its own, and nobody is promoted.
    `evidence` is what has been counted and tested so far, `revision` how often that was written.
    """

    model_config = ConfigDict(frozen=True)

    rollout_id: str
    model: str
    challenger: str
    champion: str | None
    plan: RolloutPlan
    step_index: int
    state: str
    kind: str = "release"
    experiment: Experiment | None = None
    evidence: dict[str, Any] | None = None
    revision: int = 0
    approved_step: int = -1
    started_at: datetime
    entered_at: datetime
    ended_at: datetime | None = None
    retain_until: datetime | None = None
    cool_until: datetime | None = None

    @property
    def step(self) -> RolloutStep | None:
        """The step that it is in; None before the first."""
        return self.plan.steps[self.step_index] if self.step_index >= 0 else None


Difference = Annotated[float, Field(ge=-1, le=1)]
# Squares of it and sums of those are finite.
Value = Annotated[float, Field(ge=-1e100, le=1e100)]


class Observations(BaseModel):
    """Values that were seen of one metric in one step, in the order of their requests.

    `paired`: challenger minus champion in [-1, 1], one for each request that both answered. Or values of each version
    on requests of its own. `ids` tell what they were seen on (hashes of requests or users, paired or champion's first),
    so that who enters them enters none twice, however often it is started anew.
    """

    model_config = ConfigDict(frozen=True)

    metric: str
    step_index: int
    paired: tuple[Difference, ...] = ()
    champion: tuple[Value, ...] = ()
    challenger: tuple[Value, ...] = ()
    ids: tuple[str, ...] = ()


class RolloutUnderWayError(ValueError):
    """Another challenger of the model is being rolled out. `running` is its rollout."""

    def __init__(self, running: RolloutState) -> None:
        super().__init__(f"rollout of {running.model}/{running.challenger} is under way, expected none")
        self.running = running


class CoolingDownError(ValueError):
    """A challenger of the model was rolled back a moment ago. `left_s` is how long the next one should wait."""

    def __init__(self, last: RolloutState, left_s: float) -> None:
        super().__init__(f"{last.rollout_id} was rolled back; the model cools down for another {left_s:.0f} s")
        self.left_s = left_s
