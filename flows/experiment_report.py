"""What is left of an experiment: which arm is better in which metric, in words and as a picture, in the bucket."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from typing import NamedTuple

from bentos.experiment import difference, more_requests, outcome
from flows import rollout_words as words
from flows.context import Context
from flows.rollout_report import escaped
from flows.rollout_view import RolloutView, read_view
from lake.errors import StorageError, TidemillError
from lake.layout import report_prefix
from lake.ledger import Ledger
from lake.ledger.experiments import version_of
from lake.ledger.rollout_state import RolloutState
from lake.recipe import Arm, Compared, Experiment
from lake.records import CheckResult

log = logging.getLogger("tidemill.serve")

COLUMNS = ("metric", "a", "b", "b against a", "interval", "samples a/b", "outcome")


class Line(NamedTuple):
    """One metric, in the order of COLUMNS."""

    metric: str
    a: str
    b: str
    against: str
    interval: str
    samples: str
    outcome: str


def keep_experiment_report(context: Context, rollout_id: str) -> str:
    """Write `report.md`, `report.png` and `experiment.json` of an experiment as it stands; in a flow run, show it there.

    Safe to repeat: the objects are written anew. Returns their prefix. Raises TidemillError when there is no such
    experiment, StorageError when the bucket does not take them.
    """
    from prefect.artifacts import create_markdown_artifact
    from prefect.context import FlowRunContext

    from flows.reports import shown
    from flows.rollout_plots import rollout_png

    view = read_view(context.ledger, rollout_id)
    told, png = report_markdown(view), rollout_png(view)
    prefix = report_prefix(view.state.model, "experiment", rollout_id)
    asked = experiment_of(view.state).model_dump_json(indent=1)
    context.bucket.put(f"{prefix}experiment.json", asked.encode(), "application/json")
    context.bucket.put(f"{prefix}report.png", png, "image/png")
    context.bucket.put(f"{prefix}report.md", f"{told}\n![plots](report.png)\n".encode(), "text/markdown")
    if FlowRunContext.get() is not None:
        picture = (
            f"![every metric, the split and the latencies](data:image/png;base64,{base64.b64encode(png).decode()})"
        )
        shown(create_markdown_artifact, f"{told}\n{picture}\n", key="experiment", description=rollout_id)
    return prefix


class ExperimentReports:
    """Keeps the report of every experiment that has ended, also of one that ended while nothing looked."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._kept: set[str] = set()

    def tick(self) -> list[str]:
        """Write the reports that are missing; returns the ids of their experiments."""
        new = []
        for state in self._context.ledger.experiments.all():
            if state.state == "running" or state.rollout_id in self._kept:
                continue
            if not self._context.bucket.exists(
                f"{report_prefix(state.model, 'experiment', state.rollout_id)}report.md"
            ):
                try:
                    keep_experiment_report(self._context, state.rollout_id)
                except StorageError:
                    raise
                except TidemillError as error:  # of one experiment: the others get theirs
                    log.warning("report of %s: %s", state.rollout_id, error)
                    continue
                new.append(state.rollout_id)
            self._kept.add(state.rollout_id)
        return new


def report_markdown(view: RolloutView) -> str:
    """The experiment in words: both arms, the conclusion, every metric with its interval."""
    state, experiment = view.state, experiment_of(view.state)
    until = view.ended_at or view.seen_at
    table = [f"| {' | '.join(map(escaped, line))} |" for line in lines(view)]
    split = next((decision.split for decision in reversed(view.decisions) if decision.split is not None), None)
    return "\n".join(
        [
            f"## {escaped(state.rollout_id)}: {escaped(words.stage_of(state))}",
            "",
            f"- Arm a, {experiment.arms.a.weight:.0%}: {escaped(str(state.champion))} as it serves",
            f"- Arm b, {experiment.arms.b.weight:.0%}: {escaped(arm_in_words(state))}",
            "",
            f"Began {state.started_at:%Y-%m-%d %H:%M:%S} UTC, "
            f"{words.duration_in_words(words.elapsed_s(state.started_at, until))}. {escaped(view.reason)}.",
            "",
            *(f"**{escaped(told)}**\n" for told in conclusions(view)),
            f"| {' | '.join(COLUMNS)} |",
            f"|{'---|' * len(COLUMNS)}",
            *table,
            "",
            f"Each interval holds the true difference, all of them together at every look, but for a chance of "
            f"{experiment.error_budget:g}. Split {escaped(words.split_in_words(split))}.",
            "",
        ]
    )


def conclusions(view: RolloutView) -> list[str]:
    """One sentence for each arm that is better in something, for what is alike, for what is undecided."""
    found: dict[str | None, list[str]] = {}
    for compared, result in _compared(view):
        found.setdefault(outcome(compared, result) if result else None, []).append(compared.metric)
    told = [f"Arm {arm} is better in {', '.join(found[arm])}." for arm in ("a", "b") if arm in found]
    if "alike" in found:
        told.append(f"The arms are alike in {', '.join(found['alike'])}.")
    if None in found:
        told.append(f"Undecided: {', '.join(found[None])}.")
    return told


def lines(view: RolloutView) -> list[Line]:
    """The table of COLUMNS."""
    n_requests = requests(view)
    return [_line(compared, result, n_requests) for compared, result in _compared(view)]


def requests(view: RolloutView) -> int:
    """What both arms have answered so far."""
    seen = [view.look, *reversed(view.decisions)]
    return next(
        (n for each in seen if each and (n := each.champion_stats.n_requests + each.challenger_stats.n_requests)), 0
    )


def arm_in_words(state: RolloutState) -> str:
    """What arm b is: its version, and what differs from the champion as it is."""
    arm = experiment_of(state).arms.b
    return "; ".join([f"{version_of(state)} as {state.challenger}", *_changes(arm)])


def experiment_of(state: RolloutState) -> Experiment:
    if state.experiment is None:
        raise TidemillError(
            f"report of {state.rollout_id}",
            expected="an experiment",
            got=f"a {state.kind}",
            remedy="'tidemill experiment show' lists them; of a rollout it is 'tidemill rollout report'",
        )
    return state.experiment


def named(ledger: Ledger, name: str) -> RolloutState:
    """The newest experiment by that name. Raises TidemillError when there is none."""
    state = ledger.experiments.newest(name)
    if state is None:
        known = sorted({found.experiment.name for found in ledger.experiments.all() if found.experiment})
        raise TidemillError(
            f"experiment {name}",
            expected=f"one of {', '.join(known) or '(there is none yet)'}",
            got=repr(name),
            remedy="start one with 'tidemill experiment start FILE'; see examples/experiment-*.yaml",
        )
    return state


def _changes(arm: Arm) -> Sequence[str]:
    told = [f"{name} {value:g}" for name, value in arm.sampling if value is not None]
    if arm.precision is not None:
        told.append(f"precision {arm.precision}")
    if arm.system_prompt is not None:
        told.append(f"system prompt “{arm.system_prompt}”")
    return told


def _compared(view: RolloutView) -> list[tuple[Compared, CheckResult | None]]:
    results = {result.metric: result for result in view.checks}
    return [(compared, results.get(compared.metric)) for compared in experiment_of(view.state).metrics]


def _line(compared: Compared, result: CheckResult | None, n_requests: int) -> Line:
    name = compared.metric
    if result is None or result.effect is None:
        return Line(name, "–", "–", "–", "–", "–", "no data yet")
    found = difference(compared, result)
    what = "b / a" if compared.neutral else "b - a"
    bounds = [_side(compared, end) for end in (found.lower, found.upper)]
    return Line(
        name,
        words.value_in_words(name, result.champion),
        words.value_in_words(name, result.challenger),
        f"{what} {words.effect_in_words(name, found.value)}",
        "–" if found.lower is None and found.upper is None else f"{bounds[0]} to {bounds[1]}",
        f"{result.n_champion:,}/{result.n_challenger:,}",
        _outcome(compared, result, n_requests),
    )


def _side(compared: Compared, end: float | None) -> str:
    return words.effect_in_words(compared.metric, end) if end is not None else "any"


def _outcome(compared: Compared, result: CheckResult, n_requests: int) -> str:
    found = outcome(compared, result)
    if found is not None:
        return "alike" if found == "alike" else f"{found} is better"
    more = more_requests(compared, result, n_requests)
    if not more:
        return "undecided"
    size = 10 ** max(0, len(str(more)) - 1)  # one digit is all that such an estimate tells
    return f"undecided; roughly {-(-more // size) * size:,} more requests"
