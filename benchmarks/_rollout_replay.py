"""The simulated rule against the product's own: recorded rollouts, told to `taken_in` and `decide` second by second."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from benchmarks._rollout_ours import HOLD, INCONCLUSIVE, PROMOTE, ROLL_BACK, Second
from benchmarks._rollout_traffic import BOUNDS_MS, Ints
from bentos.counters import Counters, Snapshot, VersionCounters
from bentos.evidence import Evidence, entered, taken_in
from bentos.rollout import decide
from lake.ledger.rollout_state import RolloutState
from lake.recipe import Rollout

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_ACTIONS = {"hold": (HOLD,), "promote": (PROMOTE,), "roll_back": (ROLL_BACK, INCONCLUSIVE)}


def agrees(plan: Rollout, seconds: Sequence[Second]) -> bool:
    """Whether the product decides the same after every second of one rollout, and nothing else before."""
    counted, histograms = np.zeros(4), np.zeros((2, len(BOUNDS_MS)), dtype=np.int64)
    step = 0
    evidence = _entered(Evidence(), plan, step, _snapshot(0, counted, histograms))
    for at_s, second in enumerate(seconds, start=1):
        counted, histograms = counted + second.block, histograms + second.latencies
        now = _snapshot(at_s, counted, histograms)
        looked = taken_in(
            evidence,
            now,
            model="m",
            champion="v1",
            challenger="v2",
            step_index=step,
            step=plan.steps[step],
            checks=plan.checks,
            seen=(),
        )
        if looked is None:
            return False
        action = decide(_state(plan, step), looked, decided_at=now.taken_at).action
        if second.action not in _ACTIONS[action]:
            return False
        evidence = looked
        if action == "promote":
            step += 1
            if step < len(plan.steps):
                evidence = _entered(evidence, plan, step, now)
    return True


def _entered(evidence: Evidence, plan: Rollout, step: int, now: Snapshot) -> Evidence:
    return entered(evidence, plan.steps[step]).model_copy(update={"snapshot": now})


def _snapshot(at_s: int, counted: np.ndarray, histograms: Ints) -> Snapshot:
    versions = tuple(
        VersionCounters(model="m", version=version, counters=_counters(int(n), int(k), histogram))
        for version, (n, k), histogram in zip(("v1", "v2"), counted.reshape(2, 2), histograms, strict=True)
    )
    return Snapshot(taken_at=_BEGIN + timedelta(seconds=at_s), uptime_s=1_000 + at_s, versions=versions)


def _counters(n: int, k: int, histogram: Ints) -> Counters:
    cumulative = histogram.cumsum()
    return Counters(
        n_answered=n - k,
        n_errors=k,
        n_assigned=n,
        n_latencies=int(cumulative[-1]),
        latency_buckets=tuple(zip(BOUNDS_MS.tolist(), cumulative.tolist(), strict=True)),
    )


def _state(plan: Rollout, step: int) -> RolloutState:
    return RolloutState(
        rollout_id="r", model="m", challenger="v2", champion="v1", plan=plan, step_index=step, state="running",
        started_at=_BEGIN, entered_at=_BEGIN,
    )  # fmt: skip
