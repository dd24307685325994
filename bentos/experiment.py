"""The rule of an experiment: from its evidence to hold or end, and what may be said of the two arms. Pure.

Its tests are those of rollouts, read from both sides: an arm is better in a metric once the whole confidence sequence of
the difference lies on its side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from bentos.evidence import Evidence
from bentos.rollout import burst, decision_of
from bentos.verdicts import check_result, split_result
from lake.ledger.rollout_state import RolloutState
from lake.recipe import Compared, Experiment
from lake.records import CheckResult, RolloutAction, RolloutDecision, SplitResult

Outcome = Literal["a", "b", "alike"]
# An estimate of so many times what there was already says nothing but "long".
_FARTHEST = 100.0


class Difference(NamedTuple):
    """Arm b minus arm a, or b over a, in the metric's own unit. None: not known, or no bound."""

    value: float | None
    lower: float | None
    upper: float | None


def decide(state: RolloutState, evidence: Evidence, *, decided_at: datetime) -> RolloutDecision:
    """One verdict on a running experiment: hold, or end. Raises ValueError when the state is none within its step.

    A burst of errors of arm b ends it at once, and so does a metric that is proven worse by more than the experiment
    allows. Else it ends once both arms have answered enough and every metric is decided, or when its time is over.
    While the traffic is not split as planned, nothing is concluded.
    """
    experiment, step = state.experiment, state.step
    if experiment is None or step is None:
        raise ValueError(f"step {state.step_index} of {state.rollout_id}, expected a running experiment")
    results = tuple(
        check_result(compared.check(), evidence.test(compared.check()), experiment.bound_alpha)
        for compared in experiment.metrics
    )
    split = split_result(step, evidence)
    action, reason = _verdict(experiment, evidence, results, split)
    to_stage = "ended" if action == "end" else step.stage
    return decision_of(state, action, to_stage, reason, decided_at, evidence).model_copy(
        update={"checks": results, "split": split}
    )


def outcome(compared: Compared, result: CheckResult) -> Outcome | None:
    """Which arm is better in a metric, or that they are alike within what the experiment takes for no difference.

    None while that is undecided.
    """
    neutral = compared.neutral
    lower = -math.inf if result.lower is None else result.lower
    upper = math.inf if result.upper is None else result.upper
    if min(result.n_champion, result.n_challenger) < compared.min_samples or result.effect is None:
        return None
    if (lower >= neutral) != (upper <= neutral):
        return "a" if lower >= neutral else "b"
    if compared.alike_within is None:
        return None
    least = 1 / compared.alike_within if neutral else -compared.alike_within
    return "alike" if least <= lower and upper <= compared.alike_within else None


def difference(compared: Compared, result: CheckResult) -> Difference:
    """The effect as b minus a, or b over a: a check's tells how much worse b is, whichever direction is the good one."""
    found = Difference(result.effect, result.lower, result.upper)
    if compared.check().direction == "lower":
        return found
    turned = [_turned(value, bool(compared.neutral)) for value in (found.value, found.upper, found.lower)]
    return Difference(*turned)


def more_requests(compared: Compared, result: CheckResult, n_requests: int) -> int | None:
    """Roughly how many more requests of both arms it takes until one is seen to be better, after `n_requests` so far.

    The interval narrows with the root of the number of requests, the estimate taken for the truth: it leaves out "no
    difference" after (reach / distance)² times as many. None where that is too far away, or nothing is known yet.
    """
    effect, lower, upper = result.effect, result.lower, result.upper
    if effect is None or n_requests <= 0:
        return None
    if compared.neutral:
        if effect <= 0 or (effect > 1 and not lower) or (effect < 1 and upper is None):
            return None
        effect, lower, upper = (math.log(value) if value else None for value in (effect, lower, upper))
    end = lower if effect and effect > 0 else upper
    if not effect or end is None:
        return None
    factor = (abs(effect - end) / abs(effect)) ** 2
    return None if factor > _FARTHEST else max(0, math.ceil((factor - 1) * n_requests))


def _turned(value: float | None, is_ratio: bool) -> float | None:
    if not is_ratio:
        return None if value is None else -value
    return None if not value else 1 / value


def _verdict(
    experiment: Experiment,
    evidence: Evidence,
    results: Sequence[CheckResult],
    split: SplitResult | None,
) -> tuple[RolloutAction, str]:
    if failing := burst(evidence):
        return "end", f"arm b {failing}"
    over = evidence.elapsed_s >= experiment.max_duration_s
    if split is not None and split.broken:
        why = (
            f"the traffic is not split as planned: {split.n_challenger} of {split.n_challenger + split.n_champion} went "
            f"to arm b, planned were {split.share:.0%} (p = {split.p_value:.1g}); nothing is concluded from that"
        )
        return ("end", f"its time is over: {why}") if over else ("hold", why)
    worse = [result for result in results if result.severity == "fail" and result.verdict == "worse"]
    if worse:
        return "end", "arm b is worse by more than allowed: " + "; ".join(
            f"{result.metric}: {result.reason}" for result in worse
        )
    told = "; ".join(in_words(compared, result) for compared, result in zip(experiment.metrics, results, strict=True))
    n_fewest = min(evidence.champion.n_requests, evidence.challenger.n_requests)
    undecided = [
        compared.metric
        for compared, result in zip(experiment.metrics, results, strict=True)
        if outcome(compared, result) is None
    ]
    if over:
        return "end", f"its time is over ({experiment.max_duration_s:g} s): {told}"
    if n_fewest < experiment.min_requests:
        return "hold", f"waiting for requests: {n_fewest} of {experiment.min_requests} answered by either arm"
    if undecided:
        return "hold", f"undecided: {', '.join(undecided)}"
    return "end", f"every metric is decided: {told}"


def in_words(compared: Compared, result: CheckResult) -> str:
    """The outcome in one metric: `b is better in latency_p50 (b / a 0.41, 0.33 to 0.50)`."""
    found, told = outcome(compared, result), difference_in_words(compared, result)
    if found is None:
        return f"{compared.metric} is undecided ({told})"
    if found == "alike":
        return f"a and b are alike in {compared.metric} ({told})"
    return f"{found} is better in {compared.metric} ({told})"


def difference_in_words(compared: Compared, result: CheckResult) -> str:
    """`b / a 0.41, 0.33 to 0.50`, or `b - a +1.2 points, +0.3 to +2.1`."""
    found = difference(compared, result)
    if found.value is None:
        return "nothing to compare yet"
    ends = "no bounds yet"
    if found.lower is not None or found.upper is not None:
        low, high = ("any" if end is None else _number(compared, end) for end in (found.lower, found.upper))
        ends = f"{low} to {high}"
    what, unit = ("b / a", "") if compared.neutral else ("b - a", " points")
    return f"{what} {_number(compared, found.value)}{unit}, {ends}"


def _number(compared: Compared, value: float) -> str:
    return f"{value:.2f}" if compared.neutral else f"{100 * value:+.2g}"
