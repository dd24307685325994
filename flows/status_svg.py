"""Plots as numbers for SVG: what a template draws without another thought, and without a plotting library. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flows.rollout_series import (
    TimeAxis,
    drawn_metrics,
    effect_range,
    effect_ticks,
    observed_percent,
    points_of,
    tick_label,
    time_axis,
)
from flows.rollout_view import RolloutView, thinned
from flows.rollout_words import verdict_in_short
from lake.recipe.rollout_metrics import metric
from lake.records import RolloutLook

WIDTH, HEIGHT = 340, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 22
_LATENCIES: tuple[tuple[str, Callable[[RolloutLook], float]], ...] = (
    ("champion", lambda look: look.champion_stats.latency_mean_ms),
    ("champion dotted", lambda look: look.champion_stats.latency_p95_ms),
    ("challenger", lambda look: look.challenger_stats.latency_mean_ms),
    ("challenger dotted", lambda look: look.challenger_stats.latency_p95_ms),
)


class Line(NamedTuple):
    """A polyline: `kind` is its CSS class, `points` are as SVG has them."""

    kind: str
    points: str


class Label(NamedTuple):
    x: float
    y: float
    text: str


class Panel(NamedTuple):
    """One plot. `bands` are polygons, `steps` shaded spans (x, width), `marks` decisions (x, action)."""

    title: str
    verdict: str
    told: str
    bands: tuple[str, ...]
    lines: tuple[Line, ...]
    levels: tuple[tuple[str, float], ...]
    steps: tuple[tuple[float, float], ...]
    labels: tuple[Label, ...]
    ticks: tuple[Label, ...]
    marks: tuple[tuple[float, str], ...]
    end: str


def panels(view: RolloutView) -> list[Panel]:
    """The split, the latencies, and each check that there is something to draw of."""
    looks = thinned(view.looks)
    if not looks:
        return []
    axis = time_axis(view, looks)
    checks = [_check(name, looks, axis) for name in drawn_metrics(view, looks)]
    return [_split(looks, axis), _latency(looks, axis), *checks]


def _split(looks: Sequence[RolloutLook], axis: TimeAxis) -> Panel:
    y = _linear(0, 112)
    planned = [
        _line([(at, y(100 * share)) for at in (begin, end)], axis, "planned") for begin, end, _, share in axis.steps
    ]
    seen = _broken_lines(looks, axis, observed_percent, y, "challenger")
    last = looks[-1].split
    verdict = "worse" if last is not None and last.broken else ""
    names = tuple(
        Label(_x((step.begin + step.end) / 2, axis), TOP + 8, step.name)
        for step in axis.steps
        if step.end - step.begin > 0.15 * axis.end
    )
    ticks = tuple(Label(LEFT - 5, y(value), f"{value}%") for value in (0, 25, 50, 75, 100))
    told = "to the challenger; dashed: planned"
    return _panel("traffic", verdict, told, axis, lines=(*planned, *seen), ticks=ticks, labels=names)


def _latency(looks: Sequence[RolloutLook], axis: TimeAxis) -> Panel:
    values = [value(look) for look in looks for _, value in _LATENCIES]
    high = max(values) * 1.1 or 1.0
    y = _linear(0, high)
    lines = [
        line
        for kind, value in _LATENCIES
        for line in _broken_lines(looks, axis, lambda look, of=value: of(look) or None, y, kind)  # type: ignore[misc]
    ]
    step = next(size for power in range(7) for size in (10**power, 2 * 10**power, 5 * 10**power) if high / size <= 5)
    ticks = tuple(Label(LEFT - 5, y(n * step), f"{n * step:,}") for n in range(int(high / step) + 1))
    told = "mean ms; dotted: p95; grey: champion"
    return _panel("latency", "", told, axis, lines=tuple(lines), ticks=ticks)


def _check(name: str, looks: Sequence[RolloutLook], axis: TimeAxis) -> Panel:
    points = points_of(name, looks, axis)
    last = points[-1].check
    low, high = effect_range(points)
    is_ratio = metric(name).unit == "ratio"
    y = _logarithmic(low, high) if is_ratio else _linear(low, high)
    upper = [(at, y(high if check.upper is None else check.upper)) for at, check in points]
    lower = [(at, y(low if check.lower is None else check.lower)) for at, check in points]
    effect = [(at, y(check.effect)) for at, check in points if check.effect is not None]
    ticks = tuple(Label(LEFT - 5, y(tick), tick_label(name, tick)) for tick in effect_ticks(is_ratio, low, high))
    kind = "warned" if last.severity == "warn" and last.verdict == "worse" else last.verdict
    return _panel(
        name,
        kind,
        verdict_in_short(last) + (" (only warns)" if last.severity == "warn" else ""),
        axis,
        bands=(_points([*upper, *reversed(lower)], axis),),
        lines=(_line(effect, axis, "challenger"),),
        levels=(("none", y(1.0 if is_ratio else 0.0)), ("margin", y(last.margin))),
        ticks=ticks,
    )


def _panel(
    title: str,
    verdict: str,
    told: str,
    axis: TimeAxis,
    *,
    lines: tuple[Line, ...],
    ticks: tuple[Label, ...],
    bands: tuple[str, ...] = (),
    levels: tuple[tuple[str, float], ...] = (),
    labels: tuple[Label, ...] = (),
) -> Panel:
    steps = tuple(
        (_x(step.begin, axis), round(_x(step.end, axis) - _x(step.begin, axis), 1)) for step in axis.steps[::2]
    )
    marks = tuple((_x(min(at, axis.end), axis), action) for at, action in axis.decided)
    end = f"{axis.end:.0f} {axis.unit}" if axis.end >= 10 else f"{axis.end:.1f} {axis.unit}"
    return Panel(title, verdict, told, bands, lines, levels, steps, labels, ticks, marks, end)


def _broken_lines(
    looks: Sequence[RolloutLook],
    axis: TimeAxis,
    value: Callable[[RolloutLook], float | None],
    y: Callable[[float], float],
    kind: str,
) -> list[Line]:
    """A line for each step: counts begin anew in each."""
    by_step: dict[int, list[tuple[float, float]]] = {}
    for at, look in zip(axis.looked, looks, strict=True):
        told = value(look)
        if told is not None:
            by_step.setdefault(look.step_index, []).append((at, y(told)))
    return [_line(points, axis, kind) for points in by_step.values()]


def _line(points: Sequence[tuple[float, float]], axis: TimeAxis, kind: str) -> Line:
    return Line(kind, _points(points, axis))


def _points(points: Sequence[tuple[float, float]], axis: TimeAxis) -> str:
    return " ".join(f"{_x(at, axis):g},{y:g}" for at, y in points)


def _x(at: float, axis: TimeAxis) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, at / axis.end), 1)


def _linear(low: float, high: float) -> Callable[[float], float]:
    """From a value to a height in the plot, cut at its ends."""
    return lambda value: round(
        TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(1.0, max(0.0, (value - low) / (high - low)))), 1
    )


def _logarithmic(low: float, high: float) -> Callable[[float], float]:
    y = _linear(math.log(low), math.log(high))
    return lambda value: y(math.log(max(value, 1e-9)))
