"""The evaluation gate: may a challenger stand against the champion? Pure rules, each explained in a sentence."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence

from lake.recipe import Gate
from lake.records import EvalReport, PerplexityScore, TaskScore

# Scores are shares of a few dozen items: 0.8 - 0.65 must not exceed a bound of 0.15 by a rounding error.
_ROUNDING = 1e-9


def judge(
    perplexity: Sequence[PerplexityScore],
    task: TaskScore,
    gate: Gate,
    champion: str | None,
    *,
    all_erased: bool = False,
) -> tuple[bool, tuple[str, ...]]:
    """Whether every rule holds, and a sentence about each rule. A score that is missing or not finite never passes.

    On new held-out data the challenger must beat the base model by `min_gain_over_base`, and be at most
    `max_perplexity_ratio` times the champion; on the champion's held-out data at most `max_regression` times; on the
    fixed tasks at most `max_task_drop` below the champion (the base model when there is no champion). With `all_erased`
    nothing is left of the champion's held-out data, so that the rule about it does not apply.
    """
    by_set = {score.held_out: score for score in perplexity}
    verdicts = [_gain_over_base(by_set.get("new"), gate.min_gain_over_base)]
    if champion is not None:
        verdicts.append(_against_champion("new", by_set.get("new"), gate.max_perplexity_ratio, champion))
        verdicts.append(
            (True, f"nothing is left of the held-out data of champion {champion} to compare on")
            if all_erased
            else _against_champion("champion", by_set.get("champion"), gate.max_regression, champion)
        )
    verdicts.append(_task_drop(task, gate.max_task_drop, champion))
    sentences = tuple(f"{'passed' if passed else 'failed'}: {words}" for passed, words in verdicts)
    return all(passed for passed, _ in verdicts), sentences


def _gain_over_base(score: PerplexityScore | None, least: float) -> tuple[bool, str]:
    if score is None:
        return False, "the perplexity on new held-out data was not measured, so a gain over the base model is not shown"
    gain = 1 - _ratio(score.challenger, score.base)
    return gain >= least - _ROUNDING, (
        f"perplexity on new held-out data ({score.n_tokens} tokens) is {score.challenger:.2f} against the base model's "
        f"{score.base:.2f}, a gain of {gain:.1%}; at least {least:.1%} is required"
    )


def _against_champion(name: str, score: PerplexityScore | None, most: float, champion: str) -> tuple[bool, str]:
    whose = "new held-out data" if name == "new" else f"the held-out data of champion {champion}"
    if score is None or score.champion is None:
        return False, f"the perplexity on {whose} was not measured for champion {champion}, so they cannot be compared"
    ratio = _ratio(score.challenger, score.champion)
    return ratio <= most + _ROUNDING, (
        f"perplexity on {whose} ({score.n_tokens} tokens) is {score.challenger:.2f} against champion {champion}'s "
        f"{score.champion:.2f}, a ratio of {ratio:.3f}; at most {most:.3f} is allowed"
    )


def _task_drop(task: TaskScore, most: float, champion: str | None) -> tuple[bool, str]:
    if champion is None:
        before, whose = task.base, "the base model"
    elif task.champion is None:
        return False, f"the fixed tasks were not run for champion {champion}, so a drop cannot be ruled out"
    else:
        before, whose = task.champion, f"champion {champion}"
    drop = before - task.challenger
    return drop <= most + _ROUNDING, (
        f"accuracy on the fixed tasks is {task.challenger:.1%} against {before:.1%} of {whose}, "
        f"{abs(drop) * 100:.1f} points {'lower' if drop > 0 else 'higher'}; a drop of at most "
        f"{most * 100:.1f} points is allowed"
    )


def _ratio(value: float, of: float) -> float:
    """NaN (which passes no comparison) unless both are finite, and perplexities: at least 1."""
    return value / of if math.isfinite(value) and math.isfinite(of) and value >= 1 and of >= 1 else math.nan


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1c2733; margin: 0 auto; max-width: 60rem; padding: 1.5rem; }}
table {{ border-collapse: collapse; }} td, th {{ border-bottom: 1px solid #d8dfe6; padding: .35rem .8rem; }}
td {{ text-align: right; font-variant-numeric: tabular-nums; }} th {{ text-align: left; font-weight: 600; }}
.passed {{ color: #1a7f37; }} .failed {{ color: #c62828; }} img {{ max-width: 100%; }}
</style></head><body>
<h1>{title}</h1>
<p class="{verdict}"><strong>{verdict}</strong> the gate, against {against}.</p>
<ul>{reasons}</ul>
<table><tr><th>score</th><th>base model</th><th>champion</th><th>challenger</th></tr>{rows}</table>
<p><img src="data:image/png;base64,{chart}" alt="Perplexity by held-out set; lower is better"></p>
</body></html>
"""


def render_report(report: EvalReport) -> tuple[str, bytes]:
    """A self-contained HTML page, and the bar chart in it as PNG."""
    chart = perplexity_chart(report.perplexity)
    scores = [
        (f"perplexity, {score.held_out} held-out data ({score.n_tokens} tokens)", score) for score in report.perplexity
    ]
    rows = [_row(name, score, "{:.2f}") for name, score in scores] + [
        _row("accuracy, fixed tasks", report.task, "{:.1%}")
    ]
    page = _PAGE.format(
        title=html.escape(f"{report.model} {report.version}: evaluation"),
        verdict="passed" if report.passed else "failed",
        against=html.escape(f"champion {report.champion_version}" if report.champion_version else "the base model"),
        reasons="".join(f'<li class="{line.split(":")[0]}">{html.escape(line)}</li>' for line in report.reasons),
        rows="".join(rows),
        chart=base64.b64encode(chart).decode(),
    )
    return page, chart


def _row(name: str, score: PerplexityScore | TaskScore, form: str) -> str:
    cells = ("-" if value is None else form.format(value) for value in (score.base, score.champion, score.challenger))
    return f"<tr><th>{html.escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def perplexity_chart(scores: Sequence[PerplexityScore]) -> bytes:
    """PNG with a group of bars for each held-out set. Scores that are not finite have no bar."""
    # Not pyplot: its global figures are not safe in the flows' threads. The import costs 1 s, so it waits for a report.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = {"base": "#9aa5b1", "champion": "#0b63b0", "challenger": "#e07b00"}
    for offset, (name, colour) in enumerate(colours.items()):
        values = [getattr(score, name) for score in scores]
        heights = [value if value is not None and math.isfinite(value) else 0.0 for value in values]
        bars = axes.bar(
            [place + 0.27 * (offset - 1) for place in range(len(scores))], heights, 0.25, color=colour, label=name
        )
        axes.bar_label(bars, [f"{height:.1f}" if height else "" for height in heights], fontsize=8)
    axes.set_xticks(range(len(scores)), [f"{score.held_out} held-out data" for score in scores])
    axes.set_ylabel("perplexity (lower is better)")
    axes.legend(frameon=False)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=120)
    return sink.getvalue()
