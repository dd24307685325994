"""The product's rule for many rollouts at once, second by second. `_rollout_replay` holds it against the rule itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.stats import binom, hypergeom

from benchmarks._rollout_tests import Medians, Rates, _Arrays
from benchmarks._rollout_traffic import HORIZON_S, Bools, Floats, Ints, Outcome, Scenario, histograms
from bentos.evidence import N_RECENT
from bentos.rollout import BURST_CHANCE, BURST_CHANCE_BESIDE, BURST_REQUESTS, BURST_SHARE, MIN_CHAMPION_REQUESTS
from bentos.sequential.split import log_e
from bentos.verdicts import SPLIT_ALPHA, SUSPICION_ALPHA
from lake.recipe import Rollout

HOLD, PROMOTE, ROLL_BACK, INCONCLUSIVE = range(4)


@dataclass(frozen=True)
class Second:
    """What one recorded rollout saw in one second, and what was decided after it."""

    block: Floats  # n, k of the champion, n, k of the challenger
    latencies: Ints  # [2, N_BUCKETS]
    action: int


@dataclass
class _Running(_Arrays):
    """Rollouts without a verdict. `of_step` are n, k of both within the step, `recent` those of the last looks."""

    number: Ints
    step: Ints
    elapsed_s: Floats
    of_step: Floats
    split_peak: Floats
    recent: Floats  # [n, N_RECENT, 4]


@dataclass
class _Tally:
    rolled_back: Floats
    inconclusive: Floats
    promoted: Floats
    verdict_s: Floats
    n_requests: Floats
    n_exposed: Floats
    recorded: dict[int, list[Second]] = field(default_factory=dict)


def simulated(
    plan: Rollout, scenario: Scenario, n: int, seed: int, n_recorded: int = 0
) -> tuple[Outcome, list[list[Second]]]:
    """`n` rollouts by `plan`, whose checks are error_rate and latency_p50; the first `n_recorded` second by second."""
    rng = np.random.default_rng(seed)
    margins = {check.metric: check.allowed for check in plan.checks}
    rates, medians = Rates.begun(margins["error_rate"], n), Medians.begun(margins["latency_p50"], n)
    zeros = np.zeros(n)
    running = _Running(
        np.arange(n), np.zeros(n, dtype=np.int64), zeros, np.zeros((n, 4)), zeros.copy(), np.zeros((n, N_RECENT, 4))
    )
    tally = _Tally(zeros.copy(), zeros.copy(), zeros.copy(), np.full(n, float(HORIZON_S)), zeros.copy(), zeros.copy())
    tally.recorded = {number: [] for number in range(n_recorded)}
    for second in range(1, HORIZON_S + 1):
        block, latencies = _one_second(rng, plan, scenario, running, tally)
        rates.update(block)
        live = np.array([step.stage != "shadow" for step in plan.steps])[running.step]
        # Latency is compared where clients wait for the answers.
        medians.update(latencies * live[:, None, None])
        action = _actions(plan, running, rates, medians)
        for row in np.flatnonzero(running.number < n_recorded):
            tally.recorded[int(running.number[row])].append(Second(block[row], latencies[row], int(action[row])))
        done = _moved(plan, running, action, second, tally)
        if done.any():
            rows = np.flatnonzero(~done)
            running, rates, medians = running.kept(rows), rates.kept(rows), medians.kept(rows)
        if not len(running.number):
            break
    outcome = Outcome(
        tally.rolled_back > 0,
        tally.inconclusive > 0,
        tally.promoted > 0,
        tally.verdict_s,
        tally.n_requests,
        tally.n_exposed,
    )
    return outcome, list(tally.recorded.values())


def _one_second(
    rng: np.random.Generator, plan: Rollout, scenario: Scenario, running: _Running, tally: _Tally
) -> tuple[Floats, Ints]:
    """Draw a second's traffic and count it: blocks `[n, 4]` and histograms `[n, 2, N_BUCKETS]`."""
    shares = np.array([step.share for step in plan.steps])[running.step]
    is_shadow = np.array([step.stage == "shadow" for step in plan.steps])[running.step]
    n = rng.poisson(scenario.rate_per_s, len(running.number))
    n_b = rng.binomial(n, shares)
    n_a = np.where(is_shadow, n, n - n_b)
    k_a = rng.binomial(n_a, scenario.errors)
    k_b = rng.binomial(n_b, scenario.errors + scenario.more_errors)
    latencies = np.stack([histograms(rng, n_a, 1.0), histograms(rng, n_b, scenario.slower)], axis=1)
    block = np.stack([n_a, k_a, n_b, k_b], axis=1).astype(np.float64)
    running.elapsed_s += 1
    running.of_step += block
    running.recent = np.concatenate([running.recent[:, 1:], block[:, None]], axis=1)
    step_n_a, _, step_n_b, _ = running.of_step.T
    peak = log_e(step_n_a, step_n_b, np.where(shares < 1, shares, 0.5))
    running.split_peak = np.where(is_shadow, 0.0, np.maximum(running.split_peak, peak))
    tally.n_requests[running.number] += n
    tally.n_exposed[running.number] += np.where(is_shadow, 0, n_b)
    return block, latencies


def _actions(plan: Rollout, running: _Running, rates: Rates, medians: Medians) -> Ints:
    """`bentos.rollout.decide`, in the same order."""
    steps = plan.steps
    of = running.step
    live = np.array([step.stage != "shadow" for step in steps])[of]
    min_requests = np.array([step.min_requests for step in steps])[of]
    min_s, max_s = (
        np.array([getattr(step, name) for step in steps])[of] for name in ("min_duration_s", "max_duration_s")
    )
    n_a, k_a, n_b, k_b = running.recent.sum(axis=1).T
    share = k_b / n_b.clip(1)
    burst = (n_b >= BURST_REQUESTS) & (share >= BURST_SHARE)
    burst &= hypergeom.sf(k_b - 1, n_a + n_b, k_a + k_b, n_b) <= BURST_CHANCE_BESIDE
    champion = (rates.total[:, 1] + 0.5) / (rates.total[:, 0] + 1)
    burst &= binom.sf(k_b - 1, n_b, champion) <= BURST_CHANCE
    broken = running.split_peak > -np.log(SPLIT_ALPHA)
    worse = (rates.peak > -np.log(plan.check_budget)) | (medians.peak > -np.log(plan.check_budget))
    early = (running.of_step[:, 2] < min_requests) | (running.of_step[:, 0] < MIN_CHAMPION_REQUESTS)
    early |= running.elapsed_s < min_s
    for check, test, told in (("error_rate", rates, True), ("latency_p50", medians, live)):
        found = next(each for each in plan.checks if each.metric == check)
        suspicious = (test.effect() > found.allowed) & (test.peak > -np.log(SUSPICION_ALPHA))
        early |= told & ((test.least_n() < found.min_samples) | suspicious)
    late = np.where(running.elapsed_s >= max_s, INCONCLUSIVE, HOLD)
    action: Ints = np.select([burst, broken, worse, early], [ROLL_BACK, late, ROLL_BACK, late], PROMOTE)
    return action


def _moved(plan: Rollout, running: _Running, action: Ints, second: int, tally: _Tally) -> Bools:
    """Go to the next steps; tell whose rollout has ended."""
    promoted = action == PROMOTE
    running.step = running.step + promoted
    running.elapsed_s = np.where(promoted, 0.0, running.elapsed_s)
    running.split_peak = np.where(promoted, 0.0, running.split_peak)
    running.of_step[promoted] = 0
    running.recent[promoted] = 0
    at_full = running.step >= len(plan.steps)
    back, late = action == ROLL_BACK, action == INCONCLUSIVE
    tally.rolled_back[running.number[back]] = 1
    tally.inconclusive[running.number[late]] = 1
    tally.promoted[running.number[at_full]] = 1
    ended: Bools = at_full | back | late
    tally.verdict_s[running.number[ended]] = second
    return ended
