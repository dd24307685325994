"""The picture of a rollout: every check's effect with its confidence sequence, the split, the latencies, the decisions."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

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
from flows.rollout_words import verdict_in_short, versus
from lake.recipe.rollout_metrics import metric
from lake.records import RolloutLook

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008: told apart with any colour vision. Margins are dashed besides.
CHALLENGER, CHAMPION, MARGIN, WORSE, INK, FAINT = "#0072B2", "#7f8893", "#D55E00", "#D55E00", "#1c2733", "#f0f2f5"
_CAPTION = (
    "Line: how much worse the challenger is than the champion (up is worse). Band: where the true effect is, at every look "
    "but for a small chance. Dashed: the margin.\n"
    "▲ went on   ▼ rolled back   | held.   Grey and white: the steps of the plan."
)
_COLUMNS = 3
_WIDTH_IN, _ROW_IN, _DPI = 11.0, 1.95, 110


def rollout_png(view: RolloutView) -> bytes:
    """PNG of a rollout, however little of it there is. Takes about a second, most of it matplotlib's import."""
    # Not pyplot: its global figures are not safe in the flows' threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    looks = thinned(view.looks)
    names = drawn_metrics(view, looks)
    n_rows = 1 + math.ceil(len(names) / _COLUMNS)
    figure = Figure(
        figsize=(_WIDTH_IN, _ROW_IN * n_rows + 0.7), layout=ConstrainedLayoutEngine(hspace=0.09, wspace=0.03)
    )
    FigureCanvasAgg(figure)
    draw(figure, view, looks, names, n_rows)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=_DPI)
    return sink.getvalue()


def draw(figure: Figure, view: RolloutView, looks: Sequence[RolloutLook], names: Sequence[str], n_rows: int) -> None:
    state = view.state
    outcome = {"running": "under way"}.get(state.state, state.state.replace("_", " "))
    figure.suptitle(f"{state.rollout_id}: {versus(state)}, {outcome}", x=0.01, ha="left", fontsize=12, color=INK)
    figure.supxlabel(_CAPTION, x=0.01, ha="left", fontsize=7.5, color=INK)
    grid = figure.add_gridspec(n_rows, 2 * _COLUMNS)
    time = time_axis(view, looks)
    split, latency = figure.add_subplot(grid[0, :_COLUMNS]), figure.add_subplot(grid[0, _COLUMNS:])
    _draw_split(split, looks, time)
    _draw_latency(latency, looks, time)
    for number, name in enumerate(names):
        row, column = divmod(number, _COLUMNS)
        axes = figure.add_subplot(grid[row + 1, 2 * column : 2 * column + 2])
        _draw_check(axes, name, looks, time)
        if number + _COLUMNS < len(names):
            axes.set_xlabel("")


def _frame(axes: Axes, title: str, time: TimeAxis, label_steps: bool = False, told: bool = False) -> None:
    colour, weight = (WORSE, "bold") if told else (INK, "normal")
    axes.set_title(title, loc="left", fontsize=9, color=colour, fontweight=weight)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=7.5, colors=INK)
    axes.set_xlim(0, time.end)
    axes.set_xlabel(f"{time.unit} since the begin", fontsize=7.5, color=INK)
    for number, (begin, end, name, _) in enumerate(time.steps):
        if number % 2 == 0:
            axes.axvspan(begin, end, color=FAINT, zorder=0, linewidth=0)
        if label_steps and end - begin > 0.12 * time.end:
            axes.text(
                (begin + end) / 2, 1.0, name, transform=axes.get_xaxis_transform(), ha="center", va="top",
                fontsize=7.5, color=INK,
            )  # fmt: skip
    for at, action in time.decided:
        style = {"roll_back": ("v", WORSE), "promote": ("^", CHALLENGER), "start": ("^", CHALLENGER)}
        marker, colour = style.get(action, ("|", CHAMPION))
        axes.plot(
            at, 0, marker, transform=axes.get_xaxis_transform(), color=colour, markersize=5, clip_on=False, zorder=5
        )


def _draw_split(axes: Axes, looks: Sequence[RolloutLook], time: TimeAxis) -> None:
    _frame(axes, "Traffic of the challenger, % (dashed: as planned)", time, label_steps=True)
    axes.set_ylim(0, 118)
    axes.set_yticks([0, 25, 50, 75, 100])
    for begin, end, _, share in time.steps:
        axes.plot([begin, end], [100 * share] * 2, color=CHAMPION, linestyle=(0, (4, 2)), linewidth=1.4)
    _in_steps(axes, looks, time, observed_percent, CHALLENGER, None)
    broken = [(at, seen) for at, look in zip(time.looked, looks, strict=True)
              if look.split is not None and look.split.broken and (seen := observed_percent(look)) is not None]  # fmt: skip
    if broken:
        axes.plot(*zip(*broken, strict=True), ".", color=WORSE, markersize=5, label="split broken")
        axes.legend(frameon=False, fontsize=7.5, loc="lower right")


def _draw_latency(axes: Axes, looks: Sequence[RolloutLook], time: TimeAxis) -> None:
    _frame(axes, "Latency within the step, ms (dotted: 95% are below)", time)
    _in_steps(axes, looks, time, lambda look: look.champion_stats.latency_mean_ms or None, CHAMPION, "champion")
    _in_steps(axes, looks, time, lambda look: look.champion_stats.latency_p95_ms or None, CHAMPION, None, ":")
    _in_steps(axes, looks, time, lambda look: look.challenger_stats.latency_mean_ms or None, CHALLENGER, "challenger")
    _in_steps(axes, looks, time, lambda look: look.challenger_stats.latency_p95_ms or None, CHALLENGER, None, ":")
    if looks:
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=7.5, loc="lower right", ncols=2)


def _in_steps(
    axes: Axes,
    looks: Sequence[RolloutLook],
    time: TimeAxis,
    value: Callable[[RolloutLook], float | None],
    colour: str,
    label: str | None,
    line: str = "-",
) -> None:
    """A value over time; the line breaks between steps, as their counts begin anew."""
    places: list[float] = []
    values: list[float] = []
    for number, (at, look) in enumerate(zip(time.looked, looks, strict=True)):
        if number and look.step_index != looks[number - 1].step_index:
            places.append(at)
            values.append(math.nan)
        told = value(look)
        places.append(at)
        values.append(math.nan if told is None else told)
    axes.plot(places, values, line, color=colour, linewidth=1.6, label=label)


def _draw_check(axes: Axes, name: str, looks: Sequence[RolloutLook], time: TimeAxis) -> None:
    points = points_of(name, looks, time)
    last = points[-1].check
    warn = " (only warns)" if last.severity == "warn" else ""
    _frame(axes, f"{name}{warn}: {verdict_in_short(last)}", time, told=last.verdict == "worse")
    low, high = effect_range(points)
    _effect_axis(axes, name, low, high)
    places = [at for at, _ in points]
    axes.fill_between(
        places,
        [low if check.lower is None else max(low, check.lower) for _, check in points],
        [high if check.upper is None else min(high, check.upper) for _, check in points],
        color=CHALLENGER, alpha=0.22, linewidth=0,
    )  # fmt: skip
    effects = [math.nan if check.effect is None else check.effect for _, check in points]
    axes.plot(places, effects, color=CHALLENGER, linewidth=1.6)
    axes.axhline(1.0 if metric(name).unit == "ratio" else 0.0, color=CHAMPION, linewidth=0.8)
    axes.axhline(last.margin, color=MARGIN, linewidth=1.2, linestyle=(0, (5, 2)))


def _effect_axis(axes: Axes, name: str, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    is_ratio = metric(name).unit == "ratio"
    if is_ratio:
        axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator(effect_ticks(is_ratio, low, high)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: tick_label(name, value))
