"""`tidemill rollout watch`: one rollout in the terminal, as it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import OperationalError

from flows import rollout_words as words
from flows.rollout_bars import ASCII, UNICODE, Glyphs, interval_bar, share_bar, spelt
from flows.rollout_view import Pulse, RolloutView, as_json, current, read_view
from lake.ledger import Ledger
from lake.ledger.engine import LedgerAway
from lake.ledger.rollout_state import RolloutState
from lake.records import CheckResult, RolloutLook

POLL_S = 1.0
_STYLES = {"worse": "bold red", "fine": "green", "no_data": "dim", "too_little": "dim", "undecided": ""}


class Frame:
    """One picture of a rollout. It fits 80 columns, needs no colour, and is ASCII where the terminal knows no more."""

    def __init__(self, view: RolloutView, pulse: str) -> None:
        self.view, self.pulse = view, pulse

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        glyphs = ASCII if options.ascii_only else UNICODE
        for part in self._parts(glyphs):
            for line in console.render_lines(part, options, pad=False):
                yield from (Segment(spelt(text, glyphs), style) for text, style, _ in line)
                yield Segment.line()

    def _parts(self, glyphs: Glyphs) -> Iterator[RenderableType]:
        view, state = self.view, self.view.state
        yield Text.assemble((state.rollout_id, "bold"), f"  {words.versus(state)}: ", (words.stage_of(state), "bold"))
        if state.state == "running":
            yield from _step_lines(view, glyphs)
            yield _line("controller", self.pulse, "bold red" if "STILL" in self.pulse or "NO " in self.pulse else "")
        if view.checks:
            yield Text()
            yield _checks_table(view.checks, glyphs)
        yield Text()
        for decision in view.decisions[-3:]:
            yield _line(f"{decision.decided_at:%H:%M:%S}", words.decision_in_words(decision))
        for alarm in view.alarms:
            yield _line("ALARM", f"{alarm.subject}: {alarm.message}", "bold red")
        if view.ended_at is not None:
            took = words.duration_in_words(words.elapsed_s(state.started_at, view.ended_at))
            outcome = words.OUTCOMES.get(state.state, state.state)
            style = (
                "bold green" if state.state == "promoted" else "bold red" if state.state == "rolled_back" else "bold"
            )
            yield Text(f"{outcome} after {took}: {view.reason}", style=style)


def watch(ledger: Ledger, console: Console, model: str | None, *, once: bool, json_lines: bool) -> RolloutState:
    """Show the rollout under way, or the last one, until it has ended. Returns its state then.

    Raises TidemillError when there is none. A ledger that is away for a while is waited for.
    """
    rollout_id = current(ledger, model).rollout_id
    pulse = Pulse()
    view = _seen(ledger, rollout_id)
    if json_lines:
        return _as_lines(ledger, console, view, once)
    frame = Frame(view, pulse.seen(view.lease, time.monotonic()))
    if once or view.ended_at is not None:
        console.print(frame)
        return view.state
    with Live(frame, console=console, auto_refresh=False, transient=False) as live:
        n_told = len(view.decisions)
        while view.ended_at is None:
            time.sleep(POLL_S)
            try:
                view = _seen(ledger, rollout_id)
                said = pulse.seen(view.lease, time.monotonic())
            except (LedgerAway, OperationalError):
                said = "the LEDGER is away: what is shown STANDS STILL"
            live.update(Frame(view, said), refresh=True)
            if not console.is_terminal:  # nothing moves there: each decision is a line
                for decision in view.decisions[n_told:]:
                    console.print(words.decision_in_words(decision), soft_wrap=True, markup=False, highlight=False)
            n_told = len(view.decisions)
    return view.state


def _seen(ledger: Ledger, rollout_id: str) -> RolloutView:
    last = ledger.rollout_looks.last(rollout_id)
    return read_view(ledger, rollout_id, looks=() if last is None else (last,))


def _as_lines(ledger: Ledger, console: Console, view: RolloutView, once: bool) -> RolloutState:
    """One line of JSON whenever something has changed."""
    before = ""
    while True:
        told = as_json(view)
        seen_at = told.pop("seen_at")
        now = json.dumps(told)
        if now != before:
            console.out(json.dumps({"seen_at": seen_at, **told}), highlight=False)
            before = now
        if once or view.ended_at is not None:
            return view.state
        time.sleep(POLL_S)
        view = _seen(ledger, view.state.rollout_id)


def _step_lines(view: RolloutView, glyphs: Glyphs) -> Iterator[RenderableType]:
    state, look = view.state, view.look
    step = state.step
    if step is None:
        waited_s = words.elapsed_s(state.started_at, view.seen_at)
        yield _line("waits", f"{words.duration_in_words(waited_s)} for {state.challenger} to be ready")
        return
    look = look if look is not None and look.step_index == state.step_index else None
    n_steps, elapsed_s = len(state.plan.steps), _elapsed_s(state, look, view.seen_at)
    least = f", at least {words.duration_in_words(step.min_duration_s)}" if step.min_duration_s else ""
    n = look.challenger_stats.n_requests if look else 0
    yield _line(
        f"step {state.step_index + 1} of {n_steps}",
        f"{words.duration_in_words(elapsed_s)} of at most {words.duration_in_words(step.max_duration_s)}{least}; "
        f"{n:,} requests ({step.min_requests:,} needed)",
    )
    mirrored = "copied to" if step.stage == "shadow" else "to"
    share = words.share_in_words(step.share)
    yield _line("traffic", f"{share_bar(step.share, 32, glyphs)} {share} {mirrored} {state.challenger}")
    if look is not None:
        if look.split is not None:
            yield _line("split", words.split_in_words(look.split), "bold red" if look.split.broken else "")
        yield _line("latency", _latency(look))
    if step.pause == "approval":
        approved = state.approved_step >= state.step_index
        yield _line("approval", "given" if approved else f"needed: tidemill rollout approve {state.model}")


def _elapsed_s(state: RolloutState, look: RolloutLook | None, now: datetime) -> float:
    """As the controller counts it; before its first look, by the clock."""
    return look.elapsed_s if look is not None else words.elapsed_s(state.entered_at, now)


def _latency(look: RolloutLook) -> str:
    ours, theirs = look.challenger_stats, look.champion_stats
    if not ours.n_requests or not theirs.n_requests:
        return "nothing to compare yet"
    return (
        f"mean {ours.latency_mean_ms:,.0f} ms against {theirs.latency_mean_ms:,.0f}, "
        f"p95 {ours.latency_p95_ms:,.0f} against {theirs.latency_p95_ms:,.0f}"
    )


def _line(name: str, told: str, style: str = "") -> Table:
    """A name and what is told under it; long words are wrapped beside the name, not under it."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=12, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(name, style="dim"), Text(told, style=style))
    return grid


def _checks_table(checks: tuple[CheckResult, ...], glyphs: Glyphs) -> Table:
    """A line a check. The bar: no difference and the margin are marked; the estimate within its interval."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("check", no_wrap=True, max_width=17)
    table.add_column("worse by", justify="right", no_wrap=True)
    table.add_column(f"{glyphs.none} same  {glyphs.margin} margin", no_wrap=True)
    table.add_column("p", no_wrap=True, justify="right")
    table.add_column("n", no_wrap=True, justify="right")
    table.add_column("verdict", no_wrap=True)
    for check in checks:
        style = "yellow" if check.verdict == "worse" and check.severity == "warn" else _STYLES[check.verdict]
        verdict = words.verdict_in_short(check) + (" (warns)" if check.severity == "warn" else "")
        table.add_row(
            Text(check.metric, overflow="ellipsis"),
            words.effect_in_words(check.metric, check.effect),
            interval_bar(check, 20, glyphs),
            words.p_value_in_words(check.p_value),
            f"{min(check.n_champion, check.n_challenger):,}",
            Text(verdict, style=style),
        )
    return table
