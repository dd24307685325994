"""The rule of a rollout: from what the gateway counted within one step to hold, promote or roll back. Pure."""

from __future__ import annotations

import math
from datetime import datetime

from lake.ledger.rollouts import RolloutState
from lake.recipe import RolloutStep
from lake.records import ClusterStats, RolloutAction, RolloutDecision

# Level of the test that ends a rollout before its verdict is due. It is applied at every look, and only to a
# challenger whose error rate already exceeds the allowed one; the simulation in the tests bounds what that adds up to.
ALPHA = 1e-3
# Fewer answers than this say nothing about the champion's error rate or latency.
MIN_CHAMPION_REQUESTS = 5
# A challenger that is too slow may get better, as caches fill and queues drain; by this many times the step's
# `min_requests` it has had its chance, and clients have waited long enough.
SLOW_PATIENCE = 3
NO_REQUESTS = ClusterStats(n_requests=0, n_errors=0, latency_mean_ms=0.0, latency_p95_ms=0.0)


def decide(
    state: RolloutState,
    champion: ClusterStats,
    challenger: ClusterStats,
    *,
    elapsed_s: float,
    challenger_ready: bool,
    decided_at: datetime,
) -> RolloutDecision:
    """One verdict on the step that `state` is in, from what both versions did within it.

    Roll back when the challenger has no ready endpoint, when its errors exceed the champion's by more than the plan
    allows and by more than chance (one-sided Fisher test), when it stays slower than the plan allows, or when the
    step's time is over without a verdict. Promote when enough requests were answered and neither error rate nor mean
    latency is worse than the plan allows. Else hold. Raises ValueError when the state is not within a step of its plan.

    Latency is compared where both answer clients. Nobody waits for a shadow's answers, so nothing slows its requests
    down to what it can answer: on a machine that is busy, its queue and so its latency grow however fast the model is.
    """
    if not 0 <= state.step_index < len(state.plan.steps):
        raise ValueError(f"step {state.step_index} of {state.rollout_id}, expected 0 to {len(state.plan.steps) - 1}")
    step = state.plan.steps[state.step_index]
    action, reason = _verdict(state, step, champion, challenger, elapsed_s, challenger_ready)
    to_stage = {"promote": next_stage(state), "roll_back": "rolled_back"}.get(action, step.stage)
    return RolloutDecision(
        rollout_id=state.rollout_id,
        model=state.model,
        challenger=state.challenger,
        champion=state.champion,
        action=action,
        from_stage=step.stage,
        to_stage=to_stage,
        reason=reason,
        champion_stats=champion,
        challenger_stats=challenger,
        decided_at=decided_at,
    )


def next_stage(state: RolloutState) -> str:
    """The stage after the current step: the plan's next one, or full after its last."""
    following = state.plan.steps[state.step_index + 1 :]
    return following[0].stage if following else "full"


def error_rate(stats: ClusterStats) -> float:
    return stats.n_errors / stats.n_requests if stats.n_requests else 0.0


def excess_p_value(champion: ClusterStats, challenger: ClusterStats, allowed: float) -> float:
    """Chance of as many challenger errors or more if nothing were wrong with it.

    One-sided Fisher exact test against the champion's own answers. Where the champion gets no traffic, the binomial
    tail against the `allowed` error rate.
    """
    if champion.n_requests == 0:
        return _binomial_tail(challenger.n_errors, challenger.n_requests, allowed)
    n_errors = champion.n_errors + challenger.n_errors
    n_requests = champion.n_requests + challenger.n_requests
    return _hypergeometric_tail(challenger.n_errors, n_requests, n_errors, challenger.n_requests)


def _verdict(
    state: RolloutState,
    step: RolloutStep,
    champion: ClusterStats,
    challenger: ClusterStats,
    elapsed_s: float,
    challenger_ready: bool,
) -> tuple[RolloutAction, str]:
    if not challenger_ready:
        return "roll_back", f"{state.challenger} has no ready endpoint after {challenger.n_requests} requests"
    allowed = min(1.0, error_rate(champion) + state.plan.max_error_rate_increase)
    errors = (
        f"{state.challenger} failed {_rate(challenger)}, {state.champion or 'no champion'} {_rate(champion)}; "
        f"allowed {allowed:.2%}"
    )
    too_many = error_rate(challenger) > allowed
    if too_many:
        p_value = excess_p_value(champion, challenger, allowed)
        if p_value < ALPHA:
            return "roll_back", f"{errors}, and chance alone would do this with p = {p_value:.1g}"
    enough = _enough(step, champion, challenger)
    compared = (
        "not compared in the shadow"
        if step.stage == "shadow"
        else (f"allowed {state.plan.max_latency_ratio:g} times that")
    )
    latency = f"mean latency {challenger.latency_mean_ms:.0f} ms against {champion.latency_mean_ms:.0f} ms; {compared}"
    # Without champion traffic there is nothing to compare with; its latency was compared in the steps before.
    comparable = step.stage != "shadow" and champion.n_requests > 0
    slow = comparable and challenger.latency_mean_ms > state.plan.max_latency_ratio * champion.latency_mean_ms
    if enough is None and not too_many and not slow:
        return "promote", f"{errors}; {latency}"
    if enough is None and slow and challenger.n_requests >= SLOW_PATIENCE * step.min_requests:
        return "roll_back", f"after {challenger.n_requests} requests, {latency}"
    why = enough or (errors if too_many else latency)
    if elapsed_s >= step.max_duration_s:
        return "roll_back", f"no verdict within {step.max_duration_s:g} s: {why}"
    return "hold", why


def _enough(step: RolloutStep, champion: ClusterStats, challenger: ClusterStats) -> str | None:
    """What is still missing, in words; None when both have answered enough for a verdict."""
    if challenger.n_requests < step.min_requests:
        return f"waiting for requests: {challenger.n_requests} of {step.min_requests} answered by the challenger"
    takes_all = step.stage != "shadow" and step.share >= 1
    if not takes_all and champion.n_requests < MIN_CHAMPION_REQUESTS:
        return f"waiting for requests: {champion.n_requests} of {MIN_CHAMPION_REQUESTS} answered by the champion"
    # Envoy tells latencies a moment after it has counted the answers.
    if challenger.latency_mean_ms == 0 or (champion.n_requests > 0 and champion.latency_mean_ms == 0):
        return "waiting for the gateway to tell latencies"
    return None


def _rate(stats: ClusterStats) -> str:
    return f"{stats.n_errors} of {stats.n_requests} ({error_rate(stats):.2%})"


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _hypergeometric_tail(k: int, n_total: int, n_marked: int, n_drawn: int) -> float:
    """P(at least k marked among the drawn), drawn without replacement."""
    if k <= max(0, n_drawn + n_marked - n_total):
        return 1.0
    scale = _log_choose(n_total, n_drawn)
    most = min(n_marked, n_drawn)
    terms = (
        math.exp(_log_choose(n_marked, i) + _log_choose(n_total - n_marked, n_drawn - i) - scale)
        for i in range(k, most + 1)
    )
    return min(1.0, sum(terms))


def _binomial_tail(k: int, n: int, share: float) -> float:
    """P(at least k of n) when each happens with probability `share`."""
    if k <= 0 or share >= 1:
        return 1.0
    if share <= 0:
        return 0.0
    log_yes, log_no = math.log(share), math.log1p(-share)
    return min(1.0, sum(math.exp(_log_choose(n, i) + i * log_yes + (n - i) * log_no) for i in range(k, n + 1)))
