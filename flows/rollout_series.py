"""What the plots of a rollout are drawn from: its time axis with steps and decisions, ranges and ticks of effects. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from flows.rollout_view import RolloutView
from flows.rollout_words import effect_in_words, elapsed_s, step_in_words
from lake.recipe.rollout_metrics import metric
from lake.records import CheckResult, RolloutLook


class StepSpan(NamedTuple):
    """One step as it was looked at, in the time axis' unit."""

    begin: float
    end: float
    name: str
    share: float


class TimeAxis(NamedTuple):
    """Time since the rollout's begin: the unit, the end, when it was looked at, its steps, its decisions and actions."""

    unit: str
    end: float
    looked: tuple[float, ...]
    steps: tuple[StepSpan, ...]
    decided: tuple[tuple[float, str], ...]


class Point(NamedTuple):
    at: float
    check: CheckResult


def time_axis(view: RolloutView, looks: Sequence[RolloutLook]) -> TimeAxis:
    began = view.state.started_at
    span_s = max(1.0, elapsed_s(began, view.ended_at or (looks[-1].looked_at if looks else view.seen_at)))
    unit, size_s = next(
        (unit, size)
        for unit, size in (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
        if span_s >= 3 * size or size == 1.0
    )
    looked = tuple(elapsed_s(began, look.looked_at) / size_s for look in looks)
    firsts = [i for i, look in enumerate(looks) if i == 0 or look.step_index != looks[i - 1].step_index]
    begins = [max(0.0, looked[i] - looks[i].elapsed_s / size_s) for i in firsts]
    steps = tuple(
        StepSpan(begin, end, step_in_words(view.state.plan.steps[looks[i].step_index]), looks[i].share)
        for i, begin, end in zip(firsts, begins, [*begins, span_s / size_s][1:], strict=True)
    )
    decided = tuple((elapsed_s(began, made.decided_at) / size_s, made.action) for made in view.decisions)
    return TimeAxis(unit, span_s / size_s, looked, steps, decided)


def drawn_metrics(view: RolloutView, looks: Sequence[RolloutLook]) -> list[str]:
    """The checks that there is something to draw of, in the plan's order."""
    seen = {check.metric for look in looks for check in look.checks if check.effect is not None}
    return [check.metric for check in view.state.plan.checks if check.metric in seen]


def points_of(name: str, looks: Sequence[RolloutLook], axis: TimeAxis) -> list[Point]:
    """One check over time, from its first estimate on."""
    return [
        Point(at, check)
        for at, look in zip(axis.looked, looks, strict=True)
        for check in look.checks
        if check.metric == name and check.effect is not None
    ]


def observed_percent(look: RolloutLook) -> float | None:
    """The challenger's part of the step's requests so far; None before the first.

    Of requests also where whole users are split: what `look.split` counts then is told of them.
    """
    n_champion, n_challenger = look.champion_stats.n_requests, look.challenger_stats.n_requests
    # What is mirrored is answered by the champion too.
    n = n_champion if look.stage == "shadow" else n_champion + n_challenger
    return min(100.0, 100 * n_challenger / n) if n else None


def effect_range(points: Sequence[Point]) -> tuple[float, float]:
    """So that no effect, the margin and where the interval ends up are in sight; its wide beginning may be cut.

    Of ratios both ends are above 0, for a logarithmic axis.
    """
    last = points[-1].check
    is_ratio = metric(last.metric).unit == "ratio"
    ends = [
        value
        for _, check in points[len(points) // 3 :]
        for value in (check.lower, check.upper, check.effect)
        if value is not None
    ]
    ends += [1.0 if is_ratio else 0.0, last.margin]
    if is_ratio:
        low, high = math.log(max(min(ends), 0.05)), math.log(min(max(ends), 20.0))
        room = 0.12 * (high - low) + 0.02
        return math.exp(low - room), math.exp(high + room)
    low, high = max(-1.0, min(ends)), min(1.0, max(ends))
    room = 0.12 * (high - low) + 1e-4
    return low - room, high + room


def effect_ticks(is_ratio: bool, low: float, high: float) -> list[float]:
    """A few round values between `low` and `high`."""
    if is_ratio:
        for values in (
            (0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0),
            (0.5, 0.75, 1.0, 1.5, 2.0, 3.0),
            (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
            (0.1, 1.0, 10.0),
        ):
            ticks = [value for value in values if low <= value <= high]
            if len(ticks) <= 5:
                return ticks
        return [1.0]
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def tick_label(name: str, value: float) -> str:
    """An effect as short as a tick allows: `+2 pt`, `×1.5`, `0`."""
    number, space, unit = effect_in_words(name, value).partition(" ")
    short = number.rstrip("0").rstrip(".") if "." in number else number
    return "0" if short.strip("+-") == "0" else f"{short}{space}{unit}"
