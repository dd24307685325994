"""Running rollouts and their traffic for tests: in the ledger and the bucket, as controller and replicas leave them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import update

from lake.ledger import Ledger
from lake.ledger.rollout_state import Observations, RolloutState
from lake.ledger.tables import rollouts
from lake.recipe import Rollout, RolloutCheck, RolloutStep
from lake.records import PredictionLog
from tests.predictions import prediction

# In the past, as what a step has seen is judged by the clock.
BEGAN = datetime(2026, 1, 5, 12, tzinfo=UTC)


def plan(*metrics: str | RolloutCheck, stage: str = "shadow", **step: Any) -> Rollout:
    """A plan of one step and these checks."""
    first = RolloutStep.model_validate({"stage": stage, "share": 0.5, **step})
    checks = tuple(RolloutCheck(metric=found) if isinstance(found, str) else found for found in metrics)
    return Rollout(steps=(first,), checks=checks)


def running_rollout(ledger: Ledger, wanted: Rollout, model: str = "docs") -> RolloutState:
    """A rollout of v2 against v1 that has entered its first step at BEGAN."""
    for key in ("one", "two"):
        ledger.versions.allocate(model=model, training_key=key, reason="drop", dataset_ids=("d",), parent=None)
    ledger.versions.crown(model, "v1")
    begun = ledger.rollouts.offer(model=model, challenger="v2", plan=wanted, tag=f"{model}:v2", environment={})
    assert begun.champion == "v1"
    assert ledger.rollouts.enter_step(begun.rollout_id, -1, 0, {})
    return moved(ledger, begun.rollout_id, entered_at=BEGAN)


def moved(ledger: Ledger, rollout_id: str, **changes: Any) -> RolloutState:
    """The rollout after a change that a test makes in the ledger."""
    with ledger.engine.begin() as connection:
        connection.execute(update(rollouts).where(rollouts.c.rollout_id == rollout_id).values(changes))
    found = ledger.rollouts.get(rollout_id)
    assert found is not None
    return found


def champion(number: int, response: str = "Call sorted() on the list.", **changes: Any) -> PredictionLog:
    """v1's answer to request `number`, asked that many seconds after BEGAN."""
    told = {"at": BEGAN.replace(microsecond=0) + (prediction(number).at - prediction(0).at), "response": response}
    return prediction(number, **{**told, **changes})


def challenger(number: int, response: str = "Call sorted() on the list.", **changes: Any) -> PredictionLog:
    """v2's answer to a client."""
    return champion(number, response, **{"version": "v2", **changes})


def shadow(number: int, response: str = "Call sorted() on the list.", **changes: Any) -> PredictionLog:
    """v2's answer to a copy of the request."""
    return challenger(number, response, **{"shadow": True, **changes})


def entered(ledger: Ledger, rollout_id: str, metric: str) -> Sequence[Observations]:
    """The entries of one metric, oldest first."""
    return [seen for _, seen in ledger.rollout_observations.after(rollout_id, 0) if seen.metric == metric]
