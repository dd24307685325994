"""Simulated rollouts, second by second: false and missed rollbacks beside the fixed rules of Flagger and Argo Rollouts.

Challengers no worse than the champion must hardly ever be rolled back, however often one looks; worse ones must go
before they have served many bad requests. All see the same traffic: 20 requests a second, of which the champion fails
1 %, with lognormal durations. What a rule lets through serves all clients for the rest of the hour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks._rollout_ours import simulated
from benchmarks._rollout_replay import agrees
from benchmarks._rollout_rules import ARGO, FLAGGER, RULES, ruled
from benchmarks._rollout_traffic import HORIZON_S, Outcome, Scenario
from benchmarks.report import Figure, at_least, at_most, told
from bentos.sequential.split import log_e
from bentos.verdicts import SPLIT_ALPHA
from lake.recipe import Rollout, RolloutCheck, RolloutStep
from lake.recipe.rollout_metrics import Stage

N_NULL, N_OTHER, N_RULED = 2_000, 400, 2_000
WATCHED_S = 1_200
N_REPLAYED, REPLAYED_S = 2, 120

NULL = Scenario("no worse")
RARE_NULL = Scenario("no worse, both fail 0.1 %", errors=0.001)
NULLS = (
    NULL,
    RARE_NULL,
    Scenario("no worse, 2 requests/s", rate_per_s=2),
    Scenario("no worse, both fail 20 %, 2 requests/s", errors=0.2, rate_per_s=2),
)
WORSE = (
    Scenario("+1 point of errors", more_errors=0.01),
    Scenario("+1 point of errors on 0.1 %", more_errors=0.01, errors=0.001),
    Scenario("+2 points of errors", more_errors=0.02),
    Scenario("+5 points of errors", more_errors=0.05),
    Scenario("10 % slower", slower=1.1),
    Scenario("25 % slower", slower=1.25),
)

Steps = tuple[tuple[Stage, float], ...]
STEPS: Steps = (("shadow", 1.0), ("ab", 0.5), ("canary", 0.05), ("canary", 0.25), ("canary", 0.5))
FLAGGERS_STEPS: Steps = tuple(("canary", weight / 100) for weight in FLAGGER.weights)


def plan(errors: float, median: float, steps: Steps = STEPS, **limits: float) -> Rollout:
    """Steps of 1 to 15 minutes, unless `limits` say otherwise; the two checks that roll back without a prediction log."""
    limits = {"min_duration_s": 60, "max_duration_s": 900, **limits}
    return Rollout(
        steps=tuple(
            RolloutStep.model_validate({"stage": stage, "share": share, "sticky": "none", **limits})
            for stage, share in steps
        ),
        checks=(
            RolloutCheck(metric="error_rate", margin=errors),
            RolloutCheck(metric="latency_p50", margin=median),
        ),
    )


def _default_plan() -> Rollout:
    """The recipe's own steps and margins."""
    steps = tuple(step.model_copy(update={"sticky": "none"}) for step in Rollout().steps)
    checks = tuple(RolloutCheck(metric=metric) for metric in ("error_rate", "latency_p50"))
    return Rollout(steps=steps, checks=checks)


DEFAULT = "ours, the recipe's defaults"
STRICT = "ours, margins 0 and 1.0"
LENIENT = "ours, margins 0.5 points and 1.1"  # 10 % slower is within it
OURS = {
    STRICT: plan(0.0, 1.0),
    LENIENT: plan(0.005, 1.1),
    "ours, margins 0 and 1.0, Flagger's steps": plan(0.0, 1.0, FLAGGERS_STEPS),
    DEFAULT: _default_plan(),
}


@dataclass(frozen=True)
class Row:
    rule: str
    scenario: Scenario
    outcome: Outcome

    @property
    def rolled_back(self) -> float:
        return float(self.outcome.rolled_back.mean())

    @property
    def aborted(self) -> float:
        """Rolled back for what was seen, or given up without a verdict."""
        return self.rolled_back + float(self.outcome.inconclusive.mean())

    @property
    def bad_served(self) -> float:
        return float(self.outcome.bad_served(self.scenario).mean())


def run() -> list[Figure]:
    rows = list(_rows())
    _show(rows)
    by = {(row.rule, row.scenario.name): row for row in rows}
    return [*_false_alarms(by), *_watched(), *_power(by), *_beside(by), *_replayed(), *_split()]


def _rows() -> Iterator[Row]:
    for number, scenario in enumerate((*NULLS, *WORSE)):
        print(f"{scenario.name} …", flush=True)
        n = N_NULL if scenario == NULL else N_OTHER
        for name, ours in OURS.items():
            yield Row(name, scenario, simulated(ours, scenario, n, seed=number)[0])
        for rule in RULES:
            yield Row(rule.name, scenario, ruled(rule, scenario, N_RULED, seed=number))


def _false_alarms(by: dict[tuple[str, str], Row]) -> Iterator[Figure]:
    for scenario in NULLS:
        for name, ours in OURS.items():
            row = by[name, scenario.name]
            late, held = row.outcome.inconclusive.mean(), 1 - row.rolled_back - row.outcome.promoted.mean()
            how = (
                f"of {len(row.outcome.promoted)}, looked at every second until promoted; budget {ours.error_budget:.0%}; within the hour "
                f"{held:.1%} more were not promoted ({late:.1%} given up)"
            )
            yield at_most(f"rolled back, {scenario.name}: {name}", row.rolled_back, 0.01, "", how)
        for rule in RULES:
            row = by[rule.name, scenario.name]
            yield told(f"rolled back, {scenario.name}: {rule.name}", row.rolled_back, "", f"of {N_RULED}; {rule.told}")


def _watched() -> Iterator[Figure]:
    """The hardest null: exactly as good, margins of nothing, and no promotion that would end the watching."""
    print("watched without end …", flush=True)
    limits = {"min_duration_s": WATCHED_S, "max_duration_s": WATCHED_S}
    outcome, _ = simulated(plan(0.0, 1.0, (("ab", 0.5),), **limits), NULL, N_NULL, seed=100)
    alarms = float(outcome.rolled_back.mean())
    how = f"of {N_NULL} no worse, margins 0 and 1.0, looked at every second for {WATCHED_S} s at 50/50"
    yield at_most("rolled back though watched without end", alarms, 0.01, "", how)


def _power(by: dict[tuple[str, str], Row]) -> Iterator[Figure]:
    for scenario in WORSE:
        for rule in (*OURS, *(each.name for each in RULES)):
            row = by[rule, scenario.name]
            minutes = np.median(row.outcome.verdict_s) / 60
            how = (
                f"{row.bad_served:.0f} bad requests served within the hour; verdict after {minutes:.1f} min and "
                f"{np.median(row.outcome.n_requests):.0f} requests, {np.median(row.outcome.n_exposed):.0f} of them exposed"
            )
            yield told(f"rolled back, {scenario.name}: {rule}", row.rolled_back, "", how)


def _beside(by: dict[tuple[str, str], Row]) -> Iterator[Figure]:
    names = [scenario.name for scenario in WORSE]
    for name in (STRICT, LENIENT):
        ours = sum(by[name, scenario].bad_served for scenario in names)
        for rule in RULES:
            theirs = sum(by[rule.name, scenario].bad_served for scenario in names)
            more = [
                scenario for scenario in names if by[name, scenario].bad_served > by[rule.name, scenario].bad_served
            ]
            aborts = by[rule.name, NULL.name].rolled_back
            how = (
                f"{ours:.0f} and {theirs:.0f} in one hour of each of the {len(names)} worse challengers; more than its in: "
                f"{', '.join(more) or 'none'}; it aborts {aborts:.1%} of those no worse"
            )
            ratio = ours / theirs
            figure = f"bad requests served, {name}, over {rule.name}'s"
            is_asked = name == STRICT and rule in (FLAGGER, ARGO)
            yield at_most(figure, ratio, 1, "×", how) if is_asked else told(figure, ratio, "×", how)
    aborted = {rule.name: sum(by[rule.name, each.name].aborted for each in NULLS) / len(NULLS) for rule in RULES}
    for name in (STRICT, LENIENT):
        mine = sum(by[name, each.name].aborted for each in NULLS) / len(NULLS)
        how = f"of all four kinds, given up after 15 minutes of a step included; {', '.join(f'{rule} {share:.1%}' for rule, share in aborted.items())}"
        yield at_most(f"false aborts: {name}", mine, aborted[FLAGGER.name], "", how)


def _replayed() -> Iterator[Figure]:
    """The arrays above are the product's rule: the same verdict after every second, from its own `taken_in` and `decide`."""
    print("replaying …", flush=True)
    agreed, seconds = [], 0
    ours = plan(0.005, 1.1, min_duration_s=10)
    for number, scenario in enumerate((*NULLS, *WORSE)):
        _, recorded = simulated(ours, scenario, 6, seed=200 + number, n_recorded=N_REPLAYED)
        for rollout in recorded:
            agreed.append(agrees(ours, rollout[:REPLAYED_S]))
            seconds += len(rollout[:REPLAYED_S])
    how = f"{len(agreed)} rollouts, {seconds} looks, by the controller's own functions"
    yield at_least("simulated verdicts that are the product's", float(np.mean(agreed)), 1, "", how)


def _split() -> Iterator[Figure]:
    print("splits …", flush=True)
    noticed, after = _broken_splits(0.48, 1_500, seed=300)
    how = f"of 1500 splits planned as 50/50, p < {SPLIT_ALPHA:g}; half of them after {after:.0f} requests"
    yield at_least("48/52 noticed within 20,000 requests", noticed, 0.95, "", how)
    noticed, _ = _broken_splits(0.5, 2_000, seed=301)
    yield at_most("50/50 taken for broken", noticed, 0.001, "", "of 2000, looked at after each of 20,000 requests")


def _broken_splits(share: float, n: int, seed: int, n_requests: int = 20_000) -> tuple[float, float]:
    """Share of splits that are called broken, and the median number of requests until then."""
    rng, requests = np.random.default_rng(seed), np.arange(1.0, n_requests + 1)
    first = np.full(n, np.inf)
    for number in range(n):
        challenger = np.cumsum(rng.random(n_requests) < share).astype(np.float64)
        broken = log_e(requests - challenger, challenger, 0.5) > -math.log(SPLIT_ALPHA)
        if broken.any():
            first[number] = requests[broken.argmax()]
    return float(np.isfinite(first).mean()), float(np.median(first))


def _show(rows: Sequence[Row]) -> None:
    console = Console(width=140)
    for scenario in dict.fromkeys(row.scenario for row in rows):
        table = Table(title=scenario.name, title_justify="left", title_style="bold")
        columns = (
            "rule",
            "rolled back",
            "given up",
            "promoted",
            "bad served",
            "exposed",
            "requests",
            "minutes, median",
            "90 %",
        )
        for column in columns:
            table.add_column(column, justify="left" if column == "rule" else "right")
        for row in (row for row in rows if row.scenario == scenario):
            outcome = row.outcome
            minutes = (f"{np.quantile(outcome.verdict_s, share) / 60:.1f}" for share in (0.5, 0.9))
            table.add_row(
                row.rule, f"{row.rolled_back:.1%}", f"{outcome.inconclusive.mean():.1%}", f"{outcome.promoted.mean():.1%}",
                "" if scenario.is_null else f"{row.bad_served:.0f}",
                f"{np.median(outcome.n_exposed):.0f}", f"{np.median(outcome.n_requests):.0f}", *minutes,
            )  # fmt: skip
        console.print(table)
    console.print(f"bad served: expected within {HORIZON_S // 60} minutes, beyond the champion's own", style="dim")
