"""Records of rollouts that several tests build from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bentos.counters import Counters, Snapshot, VersionCounters
from bentos.evidence import Evidence, entered, taken_in
from lake.ledger.rollout_state import Observations, RolloutState
from lake.recipe import Rollout, RolloutCheck

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
# Of servers that answer in milliseconds, on a machine that does other things too.
LOOSE_CHECKS = (RolloutCheck(metric="error_rate", margin=0.02), RolloutCheck(metric="latency_p50", margin=50.0))


def rollout_state(step_index: int, plan: Rollout, **changes: Any) -> RolloutState:
    """A running rollout of docs v2 against v1 that entered its step at BEGIN."""
    values: dict[str, Any] = {
        "rollout_id": "docs-v2-1",
        "model": "docs",
        "challenger": "v2",
        "champion": "v1",
        "plan": plan,
        "step_index": step_index,
        "state": "running",
        "started_at": BEGIN,
        "entered_at": BEGIN,
        **changes,
    }
    return RolloutState.model_validate(values)


def snapshot(at_s: float, latency_ms: float = 50.0, **asked: tuple[int, int]) -> Snapshot:
    """Counters at a time; by version: answers and errors, `latency_ms` each, all of them assigned by the split."""
    return Snapshot(
        taken_at=BEGIN + timedelta(seconds=at_s),
        uptime_s=1_000 + int(at_s),
        versions=tuple(
            VersionCounters(model="docs", version=version, counters=_counters(n, errors, latency_ms))
            for version, (n, errors) in asked.items()
        ),
    )


def begun(plan: Rollout, step_index: int = 0, **asked: tuple[int, int]) -> Evidence:
    """The evidence of a step that has begun to count at BEGIN."""
    return entered(Evidence(), plan.steps[step_index]).model_copy(update={"snapshot": snapshot(0, **asked)})


def looked(
    evidence: Evidence,
    plan: Rollout,
    now: Snapshot,
    step_index: int = 0,
    seen: Sequence[tuple[int, Observations]] = (),
) -> Evidence:
    """The evidence after one more look."""
    found = taken_in(
        evidence,
        now,
        model="docs",
        champion="v1",
        challenger="v2",
        step_index=step_index,
        step=plan.steps[step_index],
        checks=plan.checks,
        seen=seen,
    )
    assert found is not None
    return found


def _counters(n_answered: int, n_errors: int, latency_ms: float) -> Counters:
    n = n_answered + n_errors
    return Counters(
        n_answered=n_answered,
        n_errors=n_errors,
        n_assigned=n,
        n_latencies=n,
        latency_sum_ms=latency_ms * n,
        latency_buckets=tuple((latency_ms * 1.1 ** (step - 5), n * (step + 1) // 10) for step in range(10)),
    )
