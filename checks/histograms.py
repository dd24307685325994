"""The picture of a drop: how long its documents are, what became of all that was read, in which languages and domains."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lake.records import Dataset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DROP, _BEFORE, _REJECTED, _INK = "#0b63b0", "#9aa5b1", "#e07b00", "#1c2733"
_MOST_BARS = 8


def drop_picture(metrics: pd.DataFrame, dataset: Dataset, before: pd.DataFrame) -> bytes:
    """PNG of four panels. `metrics` and `before` are those of `read_metrics` and `read_history`; either may be empty."""
    # Not pyplot: its global figures are not safe in the flows' threads. The import costs 1 s, so it waits for a report.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(10.5, 6.6), layout=ConstrainedLayoutEngine(hspace=0.08, wspace=0.05))
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2)
    kept = metrics[metrics["reason"].isna()] if "reason" in metrics else metrics
    _lengths(panels[0][0], kept, before)
    _outcomes(panels[0][1], dataset)
    _shares(panels[1][0], "language", _counts(kept, "lang"), _counts(before, "lang"))
    _shares(panels[1][1], "domain", _counts(kept, "domain"), _counts(before, "domain"))
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=120)
    return sink.getvalue()


def _lengths(axes: Axes, kept: pd.DataFrame, before: pd.DataFrame) -> None:
    column = "n_tokens" if _numbers(kept, "n_tokens").size else "n_words"
    unit = column.removeprefix("n_")
    sides = {"earlier drops": (_numbers(before, column), _BEFORE), "this drop": (_numbers(kept, column), _DROP)}
    lengths = np.concatenate([values for values, _ in sides.values()])
    _title(axes, f"Length of kept documents, {unit}")
    if not lengths.size:
        _nothing(axes)
        return
    edges = np.geomspace(max(lengths.min(), 1), max(lengths.max(), 2), 41)
    for name, (values, colour) in sides.items():
        if values.size:
            weights = np.full(values.size, 100 / values.size)
            style = {"histtype": "stepfilled", "alpha": 0.45} if colour == _BEFORE else {"histtype": "step"}
            axes.hist(values.clip(1), edges, weights=weights, color=colour, label=name, linewidth=1.8, **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylabel("% of documents")
    axes.legend(frameon=False, fontsize=9)


def _outcomes(axes: Axes, dataset: Dataset) -> None:
    rejected = _commonest(dataset.rejected)
    names, counts = ["kept", *rejected], [dataset.n_kept, *rejected.values()]
    _title(axes, f"What became of {dataset.n_read:,} documents")
    bars = axes.barh(names, counts, color=[_DROP] + [_REJECTED] * len(rejected))
    n_read = max(dataset.n_read, 1)
    axes.bar_label(bars, [f"{n:,}  ({n / n_read:.1%})" for n in counts], padding=4, fontsize=8, color=_INK)
    axes.invert_yaxis()
    axes.set_xlim(0, max([*counts, 1]) * 1.35)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)


def _shares(axes: Axes, what: str, now: Mapping[str, int], before: Mapping[str, int]) -> None:
    _title(axes, f"Kept documents by {what}")
    names = list(_commonest({name: now.get(name, 0) + before.get(name, 0) for name in {*now, *before}}))
    sides = [("this drop", now, _DROP), ("earlier drops", before, _BEFORE)]
    sides = [side for side in sides if sum(side[1].values())]
    if not names or not sides:
        _nothing(axes)
        return
    height = 0.8 / len(sides)
    for number, (name, counts, colour) in enumerate(sides):
        n = sum(counts.values())
        listed = [
            counts.get(name, 0) if name != _OTHERS else n - sum(counts.get(c, 0) for c in names) for name in names
        ]
        places = np.arange(len(names)) + height * (number - (len(sides) - 1) / 2)
        bars = axes.barh(places, [100 * value / n for value in listed], height * 0.92, color=colour, label=name)
        axes.bar_label(bars, [f"{value / n:.1%}" for value in listed], padding=4, fontsize=8, color=_INK)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 115)
    axes.invert_yaxis()
    axes.set_xlabel("% of documents")
    if len(sides) > 1:
        axes.legend(frameon=False, fontsize=9, loc="lower right")


_OTHERS = "(others)"


def _commonest(counts: Mapping[str, int]) -> dict[str, int]:
    """The largest counts first, what is beyond `_MOST_BARS` as one."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(n for _, n in ordered[_MOST_BARS:])
    return dict(ordered[:_MOST_BARS]) | ({_OTHERS: rest} if rest else {})


def _counts(frame: pd.DataFrame, column: str) -> dict[str, int]:
    if column not in frame:
        return {}
    return {str(name): int(n) for name, n in frame[column].dropna().value_counts().items()}


def _numbers(frame: pd.DataFrame, column: str) -> NDArray[np.float64]:
    if column not in frame:
        return np.zeros(0)
    values: NDArray[np.float64] = pd.to_numeric(frame[column], errors="coerce").dropna().to_numpy(np.float64)
    return values


def _title(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=9, colors=_INK)


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not known", ha="center", va="center", transform=axes.transAxes, color=_BEFORE)
    axes.set_axis_off()
    axes.axison = False
