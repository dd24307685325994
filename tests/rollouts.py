"""Records of rollouts that several tests build from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lake.ledger.rollouts import RolloutState
from lake.recipe import Rollout
from lake.records import ClusterStats

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


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
        "baseline": None,
        "started_at": BEGIN,
        "entered_at": BEGIN,
        **changes,
    }
    return RolloutState.model_validate(values)


def stats(n_requests: int, n_errors: int = 0, latency_ms: float = 100.0) -> ClusterStats:
    return ClusterStats(
        n_requests=n_requests,
        n_errors=n_errors,
        latency_mean_ms=latency_ms if n_requests else 0.0,
        latency_p95_ms=2 * latency_ms if n_requests else 0.0,
    )
