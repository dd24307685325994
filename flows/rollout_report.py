"""What is left of a rollout: its decisions with their evidence, in words, as a picture and as JSON, in the bucket."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from flows import rollout_words as words
from flows.context import Context
from flows.rollout_view import RolloutView, as_json, read_view
from lake.layout import report_prefix
from lake.records import CheckResult, RolloutDecision

MOST_LOOKS = 1000  # in decisions.json; a day of them would be 20 MB


class Report(NamedTuple):
    """`told` is Markdown without the picture, `prefix` where all of it is in the bucket, `stage` how it stands."""

    told: str
    png: bytes
    prefix: str
    stage: str


def keep_rollout_report(context: Context, rollout_id: str) -> str:
    """Write the report of a rollout as it stands, and show it in the Prefect run that this is called in.

    Returns its prefix. Raises TidemillError when there is no such rollout, StorageError when the bucket refuses it.
    """
    from prefect.artifacts import create_markdown_artifact

    from flows.reports import shown

    report = write_rollout_report(context, rollout_id)
    png = base64.b64encode(report.png).decode()
    shown(
        create_markdown_artifact,
        f"{report.told}\n![every check, the split and the latencies](data:image/png;base64,{png})\n",
        key="rollout",
        description=f"{rollout_id}: {report.stage}",
    )
    return report.prefix


def write_rollout_report(context: Context, rollout_id: str) -> Report:
    """Write `report.md`, `report.png` and `decisions.json` to the bucket, anew if they are there. Raises as above."""
    from flows.rollout_plots import rollout_png

    view = read_view(context.ledger, rollout_id)
    report = Report(
        report_markdown(view),
        rollout_png(view),
        report_prefix(view.state.model, "rollout", rollout_id),
        words.stage_of(view.state),
    )
    told = json.dumps(as_json(view, MOST_LOOKS)).encode()
    context.bucket.put(f"{report.prefix}decisions.json", told, "application/json")
    context.bucket.put(f"{report.prefix}report.png", report.png, "image/png")
    context.bucket.put(f"{report.prefix}report.md", f"{report.told}\n![plots](report.png)\n".encode(), "text/markdown")
    return report


def report_markdown(view: RolloutView) -> str:
    """The whole rollout in words: how it stands, the checks, every decision with its evidence."""
    state = view.state
    ended = view.ended_at or view.seen_at
    lines = [
        f"## {escaped(state.rollout_id)}: {escaped(words.stage_of(state))}",
        "",
        f"{escaped(words.versus(state))}; began {state.started_at:%Y-%m-%d %H:%M:%S} UTC, "
        f"{words.duration_in_words(words.elapsed_s(state.started_at, ended))}. {escaped(view.reason)}",
        "",
        f"Plan: {words.plan_in_short(state)}. "
        f"Error budget {state.plan.error_budget:g} in all, {state.plan.check_budget:.2g} for each check.",
        "",
    ]
    if view.checks:
        lines += ["### The checks as they stand", "", *_table(view.checks), ""]
    lines += ["### Decisions", ""]
    for decision in view.decisions:
        lines += _decision(decision)
    return "\n".join(lines)


def _decision(decision: RolloutDecision) -> list[str]:
    ours, theirs = decision.challenger_stats, decision.champion_stats
    lines = [f"**{decision.decided_at:%H:%M:%S}** {escaped(words.decision_in_words(decision))}", ""]
    if ours.n_requests or theirs.n_requests:
        lines += [
            f"Within the step the challenger failed {ours.n_errors:,} of {ours.n_requests:,} requests, "
            f"the champion {theirs.n_errors:,} of {theirs.n_requests:,}.",
            "",
        ]
    if decision.split is not None:
        lines += [f"Split {words.split_in_words(decision.split)}.", ""]
    if decision.checks:
        lines += [*_table(decision.checks), ""]
    return lines


def _table(checks: Sequence[CheckResult]) -> list[str]:
    header = [f"| {' | '.join(words.EVIDENCE)} |", f"|{'---|' * len(words.EVIDENCE)}"]
    return [*header, *(f"| {' | '.join(map(escaped, words.evidence_row(check)))} |" for check in checks)]


def escaped(text: str) -> str:
    """Reasons may quote what a model's process has said: nothing in them is Markdown or HTML."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
