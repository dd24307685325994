"""What each check of a rollout says: from its test to a verdict in words. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bentos.evidence import Evidence
from bentos.sequential.sequential_test import SequentialTest
from lake.recipe import Rollout as RolloutPlan
from lake.recipe import RolloutCheck, RolloutStep
from lake.records import CheckResult, CheckVerdict, SplitResult

# A mismatch of the split is told at this level. Every step has a test of its own, valid at each of its looks.
SPLIT_ALPHA = 1e-3
# A check that is worse than allowed by its estimate, and this unlikely to be so by chance, waits for more.
SUSPICION_ALPHA = 0.25


def check_results(plan: RolloutPlan, step: RolloutStep, evidence: Evidence) -> tuple[CheckResult, ...]:
    """The plan's checks that can be compared in the step, and those that could be before, as they stand."""
    told = [check for check in plan.checks if step.stage in check.of.stages or check.metric in evidence.tests]
    return tuple(check_result(check, evidence.test(check), plan.check_budget) for check in told)


def split_result(step: RolloutStep, evidence: Evidence) -> SplitResult | None:
    """Whether the step's traffic was split as planned; None in the shadow, which splits nothing."""
    split = evidence.split
    if split is None:
        return None
    return SplitResult(
        share=step.share,
        n_champion=split.n_champion,
        n_challenger=split.n_challenger,
        p_value=split.p(),
        broken=split.p() < SPLIT_ALPHA,
    )


def not_ready(plan: RolloutPlan, step: RolloutStep, results: Sequence[CheckResult]) -> str | None:
    """Why the checks do not let the rollout go on yet, in words; None when they do."""
    by_metric = {result.metric: result for result in results}
    for check in plan.checks_of(step.stage):
        result = by_metric[check.metric]
        if check.severity == "warn":
            continue
        if result.verdict in ("no_data", "too_little"):
            return f"waiting for {check.metric}: {result.reason}"
        if check.proof and result.verdict != "fine":
            return f"waiting for the proof that {check.metric} is no worse: {result.reason}"
        if result.effect is not None and result.effect > check.allowed and result.p_value < SUSPICION_ALPHA:
            return f"{check.metric} looks worse, which is not certain yet: {result.reason}"
    return None


def check_result(check: RolloutCheck, test: SequentialTest, alpha: float) -> CheckResult:
    """One check as its test stands; each end of its interval may spend `alpha`."""
    bounds = test.interval(alpha)
    verdict = _verdict(check, test, alpha)
    return CheckResult(
        metric=check.metric,
        severity=check.severity,
        verdict=verdict,
        n_champion=test.n_champion,
        n_challenger=test.n_challenger,
        champion=test.champion,
        challenger=test.challenger,
        effect=test.effect,
        lower=_finite(bounds[0]) if bounds else None,
        upper=_finite(bounds[1]) if bounds else None,
        margin=check.allowed,
        alpha=alpha,
        p_value=test.p_worse(),
        reason=_in_words(check, test, verdict, bounds),
    )


def _verdict(check: RolloutCheck, test: SequentialTest, alpha: float) -> CheckVerdict:
    if min(test.n_champion, test.n_challenger) == 0:
        return "no_data"
    if test.p_worse() < alpha:
        return "worse"
    if min(test.n_champion, test.n_challenger) < check.min_samples:
        return "too_little"
    return "fine" if test.p_fine() < alpha else "undecided"


def _in_words(
    check: RolloutCheck, test: SequentialTest, verdict: CheckVerdict, bounds: tuple[float, float] | None
) -> str:
    counted = f"{test.n_challenger} of the challenger, {test.n_champion} of the champion"
    if verdict == "no_data":
        return f"nothing to compare yet ({counted})"
    if test.effect is None:
        return f"too little to tell ({counted})"
    told = f"{amount(check, test.effect)} worse, {amount(check, check.allowed)} allowed ({counted})"
    if verdict == "worse":
        return f"{told}; were it no worse than that, chance would do this with p = {test.p_worse():.1g}, at any look"
    if bounds is None:
        return told
    upper = f"between {amount(check, bounds[0])} and {amount(check, bounds[1])}"
    return f"{told}; {upper if math.isfinite(bounds[1]) else f'at least {amount(check, bounds[0])}'}"


def _finite(bound: float) -> float | None:
    """JSON has no infinity; there it is no bound."""
    return bound if math.isfinite(bound) else None


def amount(check: RolloutCheck, effect: float) -> str:
    """An effect in its unit: points of a share, a factor, or the metric's own numbers."""
    told = {"points": f"{100 * effect:+.1f} points", "ratio": f"{effect:.2f} times", "score": f"{effect:+.2f}"}
    return told[check.of.unit]
