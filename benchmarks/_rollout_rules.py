"""The fixed rules of Flagger and Argo Rollouts, as their documentation has them, on the same traffic.

Where the documentation leaves something open, what is kinder to them is simulated: success rates are those of all
requests within the interval (Argo's example asks `irate`, the last two samples alone), percentiles are those of the
durations themselves, metrics are there at once, and a promotion takes no time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks._rollout_traffic import HORIZON_S, Bools, Floats, Ints, Outcome, Scenario, p99_ms


@dataclass(frozen=True)
class Rule:
    """A check each `interval_s` of the challenger alone; `max_failures` failed ones, in all, and it is rolled back.

    The weights in percent follow each other with each check passed (Flagger), or each `pause_s` (Argo Rollouts), where
    the first `unwatched` of them are not measured. `max_p99_ms` None: durations are not looked at.
    """

    name: str
    told: str
    interval_s: int
    min_success: float
    max_failures: int
    weights: tuple[int, ...]
    max_p99_ms: float | None = None
    pause_s: int | None = None
    unwatched: int = 0


# docs.flagger.app, "Deployment Strategies" and "Metrics Analysis": interval 1m, threshold 5 (failed checks, which are
# never reset within an analysis), stepWeight 10, maxWeight 50, request-success-rate min 99, request-duration (P99) max
# 500 ms. A failed check halts the advancement; so does an interval without requests.
FLAGGER = Rule(
    name="Flagger",
    told="interval 1m, threshold 5, stepWeight 10, maxWeight 50, success rate ≥ 99 %, P99 ≤ 500 ms",
    interval_s=60, min_success=0.99, max_failures=5, weights=(10, 20, 30, 40, 50), max_p99_ms=500.0,
)  # fmt: skip
FLAGGER_LOOSE = Rule(
    name="Flagger, 97 %",
    told="the same by somebody who knows that 1 % of the requests fail anyway: success rate ≥ 97 %, P99 ≤ 600 ms",
    interval_s=60, min_success=0.97, max_failures=5, weights=(10, 20, 30, 40, 50), max_p99_ms=600.0,
)  # fmt: skip
# argo-rollouts, docs/features/analysis.md, "Background Analysis": weights 20, 40, 60, 80 with pauses of 10 minutes, an
# analysis from the second on, interval 5m, successCondition ≥ 0.95, failureLimit 3: "If the metric is measured to be less
# than 95%, and there are three such measurements, the analysis is considered Failed."
ARGO = Rule(
    name="Argo Rollouts",
    told="setWeight 20, 40, 60, 80, pause 10m, analysis from 40 on, interval 5m, success rate ≥ 0.95, failureLimit 3",
    interval_s=300, min_success=0.95, max_failures=3, weights=(20, 40, 60, 80), pause_s=600, unwatched=1,
)  # fmt: skip
ARGO_TIGHT = Rule(
    name="Argo Rollouts, 0.99",
    told="the same weights, pause 2m, analysis from the start, interval 1m, success rate ≥ 0.99, P99 ≤ 500 ms, failureLimit 3",
    interval_s=60, min_success=0.99, max_failures=3, weights=(20, 40, 60, 80), pause_s=120, max_p99_ms=500.0,
)  # fmt: skip
RULES = (FLAGGER, FLAGGER_LOOSE, ARGO, ARGO_TIGHT)


def ruled(rule: Rule, scenario: Scenario, n: int, seed: int) -> Outcome:
    """`n` rollouts by a fixed rule."""
    rng = np.random.default_rng(seed)
    step, failures = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    rolled_back, promoted = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    verdict_s, n_requests, n_exposed = np.full(n, float(HORIZON_S)), np.zeros(n), np.zeros(n)
    for now_s in range(rule.interval_s, HORIZON_S + 1, rule.interval_s):
        running = ~(rolled_back | promoted)
        requests = rng.poisson(scenario.rate_per_s * rule.interval_s, n)
        answered = rng.binomial(requests, np.array(rule.weights)[step.clip(0, len(rule.weights) - 1)] / 100)
        n_requests += requests * running
        n_exposed += answered * running
        failed = _failed(rng, rule, scenario, answered)
        watched = running & ((now_s >= rule.unwatched * (rule.pause_s or 0)) | (rule.pause_s is None))
        failures += failed & watched
        # Flagger looks at the number of failed checks when the next is due: the challenger serves one interval more.
        late = rule.pause_s is None
        back = running & (failures - (failed & watched if late else 0) >= rule.max_failures)
        rolled_back |= back
        goes_on = running & ~back
        step = step + (goes_on & (~failed if rule.pause_s is None else now_s % rule.pause_s == 0))
        promoted |= goes_on & (step >= len(rule.weights))
        verdict_s = np.where(running & (rolled_back | promoted), now_s, verdict_s)
    return Outcome(rolled_back, np.zeros(n, dtype=bool), promoted, verdict_s, n_requests, n_exposed)


def _failed(rng: np.random.Generator, rule: Rule, scenario: Scenario, answered: Ints) -> Bools:
    errors = rng.binomial(answered, scenario.errors + scenario.more_errors)
    success: Floats = 1 - errors / answered.clip(1)
    failed: Bools = (success < rule.min_success) | (answered == 0)
    if rule.max_p99_ms is not None:
        failed |= p99_ms(rng, answered.clip(1), scenario.slower) > rule.max_p99_ms
    return failed
