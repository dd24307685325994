"""The rule of a rollout: from its evidence to hold, promote or roll back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, gammaln

from bentos.counters import stats_of
from bentos.evidence import Evidence
from bentos.verdicts import check_results, not_ready, split_result
from lake.ledger.rollout_state import RolloutState
from lake.recipe import RolloutStep
from lake.records import CheckResult, ClusterStats, RolloutAction, RolloutDecision, SplitResult

# A sticky step whose users nobody counts may be split in any way.
MIN_SPLIT_USERS = 10
# Fewer answers than this within the step: there is no concurrent champion to compare with.
MIN_CHAMPION_REQUESTS = 5
# A burst: as many answers of the challenger within the last looks, this share of them failed, and neither the champion's
# rate in the whole rollout makes that likely (the looks of a rollout are many), nor what the champion did at the same
# time (what both suffer from is not the challenger's). Such a version is taken away before any test has its say.
BURST_REQUESTS = 10
BURST_SHARE = 0.5
BURST_CHANCE = 1e-6
BURST_CHANCE_BESIDE = 1e-4
NO_REQUESTS = ClusterStats(n_requests=0, n_errors=0, latency_mean_ms=0.0, latency_p95_ms=0.0)


def decide(state: RolloutState, evidence: Evidence, *, decided_at: datetime) -> RolloutDecision:
    """One verdict on the step that `state` is in. Raises ValueError when the state is not within a step of its plan.

    In this order. A burst of errors rolls back at once. While the traffic is not split as planned, nothing else is
    concluded from it. A check that is worse by more than its margin, beyond chance at every look that there was, rolls
    back. The step goes on once both versions have answered enough for long enough, every check that rolls back has
    data and none looks worse, and the pause, if it has one, is over. Else hold; at the step's end as the plan says.
    """
    step = state.step
    if step is None:
        raise ValueError(f"step {state.step_index} of {state.rollout_id}, expected 0 to {len(state.plan.steps) - 1}")
    results, split = check_results(state.plan, step, evidence), split_result(step, evidence)
    action, reason = _verdict(state, step, evidence, results, split)
    return decision_of(
        state,
        action,
        {"promote": next_stage(state), "roll_back": "rolled_back"}.get(action, step.stage),
        reason,
        decided_at,
        evidence,
    ).model_copy(update={"checks": results, "split": split})


def decision_of(
    state: RolloutState,
    action: RolloutAction,
    to_stage: str,
    reason: str,
    decided_at: datetime,
    evidence: Evidence | None = None,
) -> RolloutDecision:
    """A decision as a record, with both versions' figures within the step."""
    return RolloutDecision(
        rollout_id=state.rollout_id,
        model=state.model,
        challenger=state.challenger,
        champion=state.champion,
        action=action,
        from_stage=state.step.stage if state.step else "pending",
        to_stage=to_stage,
        reason=reason,
        champion_stats=stats_of(evidence.champion) if evidence else NO_REQUESTS,
        challenger_stats=stats_of(evidence.challenger) if evidence else NO_REQUESTS,
        decided_at=decided_at,
    )


def next_stage(state: RolloutState) -> str:
    """The stage after the current step: the plan's next one, or full after its last."""
    following = state.plan.steps[state.step_index + 1 :]
    return following[0].stage if following else "full"


def _verdict(
    state: RolloutState,
    step: RolloutStep,
    evidence: Evidence,
    results: Sequence[CheckResult],
    split: SplitResult | None,
) -> tuple[RolloutAction, str]:
    if failing := burst(evidence):
        return "roll_back", f"{state.challenger} {failing}"
    if split is not None and split.broken:
        why = (
            f"the traffic is not split as planned: {split.n_challenger} of {split.n_challenger + split.n_champion} went "
            f"to {state.challenger}, planned were {split.share:.0%} (p = {split.p_value:.1g}); no verdict rests on that"
        )
        return _inconclusive(state, step, evidence, why)
    if step.is_sticky and split is not None and split.n_champion + split.n_challenger < MIN_SPLIT_USERS:
        n = split.n_champion + split.n_challenger
        return _inconclusive(state, step, evidence, f"waiting for users: {n} of {MIN_SPLIT_USERS} counted in the split")
    worse = [result for result in results if result.severity == "fail" and result.verdict == "worse"]
    if worse:
        return "roll_back", "; ".join(f"{result.metric}: {result.reason}" for result in worse)
    why_not = _too_early(step, evidence) or not_ready(state.plan, step, results)
    if why_not is not None:
        return _inconclusive(state, step, evidence, why_not)
    if step.pause == "approval" and state.approved_step < state.step_index:  # people may take their time
        return "hold", f"waiting for approval: 'tidemill rollout approve {state.model}'"
    return "promote", _summary(state, evidence, results)


def burst(evidence: Evidence) -> str | None:
    """What is said of a challenger that fails most of its requests now, while the champion does not; else None."""
    n = sum(look.n_challenger for look in evidence.recent)
    failed = sum(look.n_challenger_errors for look in evidence.recent)
    n_champion = sum(look.n_champion for look in evidence.recent)
    champion_failed = sum(look.n_champion_errors for look in evidence.recent)
    if n < BURST_REQUESTS or failed / n < BURST_SHARE:
        return None
    if burst_chance(n, failed, *_champion_so_far(evidence)) > BURST_CHANCE:
        return None
    if chance_beside(n, failed, n_champion, champion_failed) > BURST_CHANCE_BESIDE:
        return None
    return f"failed {failed} of its last {n} requests, the champion {champion_failed} of {n_champion}"


def burst_chance(n: int, n_failed: int, n_champion: int, n_champion_failed: int) -> float:
    """The chance of so many failures or more, each as likely as the champion's are (a binomial tail)."""
    rate = (n_champion_failed + 0.5) / (n_champion + 1)
    return float(bdtrc(n_failed - 1, n, rate))


def chance_beside(n: int, n_failed: int, n_champion: int, n_champion_failed: int) -> float:
    """The chance of so many failures or more, were all failures of both dealt out at random (Fisher's exact test)."""
    n_both, n_all_failed = n + n_champion, n_failed + n_champion_failed
    k = np.arange(n_failed, min(n, n_all_failed) + 1)
    log_ways = _log_choose(n_all_failed, k) + _log_choose(n_both - n_all_failed, n - k) - _log_choose(n_both, n)
    return float(np.exp(log_ways).sum())


def _log_choose(n: int, k: NDArray[np.int64] | int) -> NDArray[np.float64]:
    found: NDArray[np.float64] = gammaln(n + 1) - gammaln(np.add(k, 1)) - gammaln(np.subtract(n + 1, k))
    return found


def _champion_so_far(evidence: Evidence) -> tuple[int, int]:
    """The champion's requests and errors in the whole rollout, where a check counts them; else within the step."""
    counted = evidence.champion_errors()
    return counted or (evidence.champion.n_requests, evidence.champion.n_errors)


def _too_early(step: RolloutStep, evidence: Evidence) -> str | None:
    champion, challenger, elapsed_s = evidence.champion, evidence.challenger, evidence.elapsed_s
    if challenger.n_requests < step.min_requests:
        return f"waiting for requests: {challenger.n_requests} of {step.min_requests} answered by the challenger"
    if champion.n_requests < MIN_CHAMPION_REQUESTS:
        return f"waiting for requests: {champion.n_requests} of {MIN_CHAMPION_REQUESTS} answered by the champion"
    # A gateway tells latencies a moment after it has counted the answers.
    if not champion.latencies or not challenger.latencies:
        return "waiting for the gateway to tell latencies"
    if elapsed_s < step.min_duration_s:
        return f"waiting for time: {elapsed_s:.0f} of {step.min_duration_s:.0f} s"
    return None


def _inconclusive(state: RolloutState, step: RolloutStep, evidence: Evidence, why: str) -> tuple[RolloutAction, str]:
    """Hold; when the step's time is over, what the plan says. Nothing is ever promoted for want of a verdict."""
    if evidence.elapsed_s < step.max_duration_s:
        return "hold", why
    told = f"no verdict within {step.max_duration_s:g} s: {why}"
    if step.pause == "approval":  # a person looks at it anyhow, and may take longer
        return "hold", told
    return ("roll_back" if state.plan.on_inconclusive == "roll_back" else "hold"), told


def _summary(state: RolloutState, evidence: Evidence, results: Sequence[CheckResult]) -> str:
    ours, theirs = stats_of(evidence.champion), stats_of(evidence.challenger)
    told = [
        f"{state.challenger} failed {_rate(theirs)}, {state.champion} {_rate(ours)}",
        f"mean latency {theirs.latency_mean_ms:.0f} ms against {ours.latency_mean_ms:.0f} ms",
    ]
    warned = [f"warning: {result.metric}: {result.reason}" for result in results if _warns(result)]
    return "; ".join(told + warned)


def _warns(result: CheckResult) -> bool:
    return result.severity == "warn" and result.verdict == "worse"


def _rate(stats: ClusterStats) -> str:
    share = stats.n_errors / stats.n_requests if stats.n_requests else 0.0
    return f"{stats.n_errors} of {stats.n_requests} ({share:.2%})"
