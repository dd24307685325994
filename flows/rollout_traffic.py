"""How long a rollout plan takes at a given traffic, and what it would notice. Estimates, and told as such. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import NamedTuple

from bentos.evidence import COST_REQUESTS
from bentos.rollout import MIN_CHAMPION_REQUESTS
from bentos.sequential.means import MIN_VALUES
from bentos.verdicts import SUSPICION_ALPHA
from flows.rollout_words import duration_in_words, step_in_words
from lake.recipe.rollout import Rollout, RolloutCheck, RolloutStep
from lake.recipe.rollout_metrics import quantile_of

# What is assumed of traffic that nobody has seen yet.
ERROR_RATE = 0.01  # of the champion
LATENCY_SPREAD = 0.5  # standard deviation of the logarithm of a duration: p95 is then 2.3 times the median
COST_SPREAD = 0.5  # standard deviation over mean of a request's cost
# Rates of what the gateway does not see: no estimate.
UNKNOWN_RATE = ("feedback", "energy_j", "business:")
LEAST_TAIL = 5  # as in bentos/sequential/quantiles.py
_NORMAL = NormalDist()
_EXTRA_ERRORS = (0.01, 0.02, 0.05)
_EXTRA_POINTS = (0.1, 0.3)
_EXTRA_FACTORS = (1.25, 2.0)


class StepTime(NamedTuple):
    """One step at the given traffic. `shortest_s` is None when it can never have what it waits for."""

    number: int
    name: str
    challenger_per_s: float
    champion_per_s: float
    shortest_s: float | None
    longest_s: float
    waits_for: str


class Detection(NamedTuple):
    """A challenger that is worse by `effect` in all. `n_challenger`: its requests until about half of such are found
    (None: never).

    `after_s` is the time into the plan at its fastest by which that is so, None where the plan has ended before.
    """

    metric: str
    severity: str
    effect: float
    n_challenger: int | None
    after_s: float | None


class Estimate(NamedTuple):
    requests_per_s: float
    steps: tuple[StepTime, ...]
    detections: tuple[Detection, ...]
    warnings: tuple[str, ...]

    @property
    def shortest_s(self) -> float | None:
        """Of the whole plan without a hold; None when a step cannot pass."""
        times = [step.shortest_s for step in self.steps]
        return None if None in times else sum(time for time in times if time is not None)

    @property
    def longest_s(self) -> float:
        return sum(step.longest_s for step in self.steps)


def estimate(plan: Rollout, requests_per_s: float, log_share: float = 1.0) -> Estimate:
    """Time and power of a plan. `log_share` of the requests are in the prediction log.

    Raises ValueError unless `requests_per_s` is above 0 and finite.
    """
    if not (math.isfinite(requests_per_s) and requests_per_s > 0):
        raise ValueError(f"requests_per_s={requests_per_s}, expected a number above 0")
    steps = tuple(
        _step_time(plan, step, number, requests_per_s, log_share) for number, step in enumerate(plan.steps, start=1)
    )
    detections = tuple(
        _detection(plan, check, effect, steps, log_share)
        for check in plan.checks
        if not check.metric.startswith(UNKNOWN_RATE) and plan_stages(plan, check)
        for effect in _effects(check)
    )
    return Estimate(requests_per_s, steps, detections, tuple(_warnings(plan, steps, requests_per_s, log_share)))


def needed(variance: float, distance: float, alpha: float) -> float:
    """Requests until a sequential test of a mean at `distance` from its null has an e-value of 1/alpha, about.

    `variance` is that of one request's contribution. Each adds distance²/(2·variance) to the logarithm of the likelihood
    ratio (Wald 1945); a mixture over unknown distances pays log(n)/2 of it (Robbins 1970). So n solves
    n = 2·variance·(log(1/alpha) + log(n)/2)/distance².
    """
    if distance <= 0:
        return math.inf
    n = 1.0
    for _ in range(30):
        n = max(1.0, 2 * variance * (math.log(1 / alpha) + math.log(n) / 2) / distance**2)
    return n


def requests_to_detect(check: RolloutCheck, effect: float, step: RolloutStep, alpha: float) -> float:
    """Requests of the challenger until a check finds that it is worse by `effect` in all (infinite within the margin).

    Rates: the difference of two Bernoulli variables. Quantiles: the rate at which the challenger exceeds the champion's
    quantile times the margin, for log-normal durations. Costs: means with a relative spread, in values of several
    requests; their asymptotic sequence takes twice as many, measured. The champion's part of the variance shrinks with
    its larger number of requests. Paired values: flags that differ in `effect` of the pairs, by the predictable
    empirical-Bernstein bet of at most 1/2 on their half (Waudby-Smith and Ramdas 2024, theorem 2).
    Within about a factor of two of what the tests take in simulation.
    """
    per_champion = step.share if step.stage == "shadow" else step.share / (1 - step.share)
    margin = check.allowed
    if check.of.kind == "rate":
        worse = min(1.0, ERROR_RATE + effect)
        variance = worse * (1 - worse) + ERROR_RATE * (1 - ERROR_RATE) * per_champion
        return needed(variance, effect - margin, alpha)
    if check.of.kind == "quantile":
        at = quantile_of(check.metric)[1]
        exceeds = 1 - _NORMAL.cdf(_NORMAL.inv_cdf(at) - math.log(effect / margin) / LATENCY_SPREAD)
        variance = exceeds * (1 - exceeds) + at * (1 - at) * per_champion
        first = LEAST_TAIL / min(at, 1 - at) * per_champion  # until the champion's quantile is known
        return first + needed(variance, exceeds - (1 - at), alpha)
    if check.of.kind == "paired":
        return _needed_pairs(effect, margin, alpha)
    twice = 2 * needed(COST_SPREAD**2 * (1 + per_champion), math.log(effect / margin), alpha)
    return max(twice, float(MIN_VALUES * COST_REQUESTS))


def _needed_pairs(effect: float, margin: float, alpha: float) -> float:
    distance, variance = (effect - margin) / 2, max(effect * (1 - effect) / 4, 1e-4)
    if distance <= 0:
        return math.inf
    bet = min(0.5, distance / variance)
    growth = bet * distance - variance * (-math.log(1 - bet) - bet)
    return math.log(1 / alpha) / growth if growth > 0 else needed(variance, distance, alpha)


def plan_stages(plan: Rollout, check: RolloutCheck) -> list[RolloutStep]:
    """The steps in which a check can be compared."""
    return [step for step in plan.steps if step.stage in check.of.stages]


def _rates(step: RolloutStep, requests_per_s: float) -> tuple[float, float]:
    """Requests per second of challenger and champion."""
    live = requests_per_s if step.stage == "shadow" else requests_per_s * (1 - step.share)
    return requests_per_s * step.share, live


def _samples_per_s(check: RolloutCheck, rate_per_s: float, log_share: float) -> float:
    return rate_per_s * log_share if check.of.needs_log else rate_per_s


def _step_time(plan: Rollout, step: RolloutStep, number: int, requests_per_s: float, log_share: float) -> StepTime:
    challenger, champion = _rates(step, requests_per_s)
    waits = [
        (step.min_duration_s, "its shortest time"),
        (step.min_requests / challenger, f"{step.min_requests} requests"),
    ]
    waits.append((MIN_CHAMPION_REQUESTS / champion, f"{MIN_CHAMPION_REQUESTS} requests of the champion"))
    for check in _first_seen(plan, number):  # samples are kept from step to step
        rate = _samples_per_s(check, min(challenger, champion), log_share)
        if check.severity == "fail" and not check.metric.startswith(UNKNOWN_RATE) and rate > 0:
            waits.append((check.min_samples / rate, f"{check.min_samples} samples of {check.metric}"))
    shortest_s, waits_for = max(waits, key=lambda wait: wait[0])
    if shortest_s > step.max_duration_s:
        return StepTime(number, step_in_words(step), challenger, champion, None, step.max_duration_s, waits_for)
    return StepTime(number, step_in_words(step), challenger, champion, shortest_s, step.max_duration_s, waits_for)


def _first_seen(plan: Rollout, number: int) -> list[RolloutCheck]:
    """The checks that no step before had."""
    before = {step.stage for step in plan.steps[: number - 1]}
    now = plan.checks_of(plan.steps[number - 1].stage)
    return [check for check in now if not before & set(check.of.stages)]


def _effects(check: RolloutCheck) -> list[float]:
    """How much worse a challenger might be in all: some way beyond the margin."""
    if check.of.unit == "ratio":
        return [check.allowed * factor for factor in _EXTRA_FACTORS]
    if check.of.kind == "rate":
        return [extra for extra in _EXTRA_ERRORS if extra > check.allowed] or [min(1.0, 2 * check.allowed + 0.05)]
    return [check.allowed + extra for extra in _EXTRA_POINTS if check.allowed + extra <= 1] or [1.0]


def _detection(
    plan: Rollout, check: RolloutCheck, effect: float, steps: tuple[StepTime, ...], log_share: float
) -> Detection:
    """Evidence adds up over the steps, so each gives its part of what is needed. A check that looks worse holds a step."""
    told, suspected, before_s = 0.0, 0.0, 0.0
    after_s: float | None = None
    fewest = math.inf
    for step, time in zip(plan.steps, steps, strict=True):
        length_s = time.longest_s if time.shortest_s is None else time.shortest_s
        if step.stage in check.of.stages and after_s is None:
            n = max(requests_to_detect(check, effect, step, plan.check_budget), check.min_samples)
            n_suspected = max(requests_to_detect(check, effect, step, SUSPICION_ALPHA), check.min_samples)
            fewest = min(fewest, n)
            per_s = _samples_per_s(check, time.challenger_per_s, log_share)
            suspected += per_s / n_suspected * length_s
            holds = suspected >= 1 and check.severity == "fail"
            if told + per_s / n * (time.longest_s if holds else length_s) >= 1:
                after_s = before_s + (1 - told) * n / per_s
            elif holds and plan.on_inconclusive == "roll_back":
                after_s = before_s + time.longest_s
            told += per_s / n * length_s
        before_s += length_s
    return Detection(
        check.metric, check.severity, effect, math.ceil(fewest) if math.isfinite(fewest) else None, after_s
    )


def _warnings(plan: Rollout, steps: tuple[StepTime, ...], requests_per_s: float, log_share: float) -> Iterator[str]:
    for time in steps:
        if time.shortest_s is None:
            yield (
                f"at {requests_per_s:g} requests/s step {time.number} ({time.name}) cannot reach {time.waits_for} within "
                f"its {duration_in_words(time.longest_s)}: lower what it waits for, or raise max_duration_s"
            )
    for check in plan.checks:
        where = plan_stages(plan, check)
        if not where:
            stages = " or ".join(check.of.stages)
            yield f"{check.metric} is compared in {stages} only, and the plan has no such step: it never has a say"
        elif check.of.needs_log and log_share <= 0:
            yield f"{check.metric} is told by the prediction log, which is off (monitoring.log_share is 0)"
        elif check.metric.startswith(UNKNOWN_RATE):
            yield (
                f"{check.metric} waits for {check.min_samples} samples of each version; how often they come is not known "
                "here"
            )
        elif check.proof:
            yield from _proof(plan, check, where, requests_per_s, log_share)
    if plan.steps and not any(check.severity == "fail" for step in plan.steps for check in plan.checks_of(step.stage)):
        yield "no check rolls back: only hard signals do, whatever the challenger's answers are like"


def _proof(
    plan: Rollout, check: RolloutCheck, where: list[RolloutStep], requests_per_s: float, log_share: float
) -> Iterator[str]:
    """An equal challenger must be told from one at the margin, within the longest time of the steps."""
    none, alpha = (1.0, plan.check_budget) if check.of.unit == "ratio" else (0.0, plan.check_budget)
    distance = math.log(check.allowed) if none else check.allowed
    variance = COST_SPREAD**2 if none else ERROR_RATE * (1 - ERROR_RATE)
    if check.of.kind == "quantile":
        at = quantile_of(check.metric)[1]
        variance = at * (1 - at)
        distance = _NORMAL.cdf(_NORMAL.inv_cdf(at) + math.log(check.allowed) / LATENCY_SPREAD) - at
    n = needed(2 * variance, distance, alpha)
    most = sum(
        _samples_per_s(check, _rates(step, requests_per_s)[0], log_share) * step.max_duration_s for step in where
    )
    if most < n:
        told = (
            f"about {n:,.0f} requests" if math.isfinite(n) else "infinitely many requests (its margin leaves no room)"
        )
        yield (
            f"{check.metric} asks for a proof, which takes {told} of the challenger; the steps have {most:,.0f} at the most: "
            "an equal challenger would end without a verdict"
        )
