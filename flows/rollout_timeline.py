"""All rollouts in one table: how long each was in which stage, how it ended, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from flows import rollout_words as words
from flows.rollout_view import all_rollouts
from lake.ledger import Ledger
from lake.ledger.rollout_state import RolloutState
from lake.records import RolloutDecision

WAITING = "pending"
_LETTERS = {WAITING: ".", "shadow": "s", "ab": "a", "canary": "c"}
_COLOURS = {WAITING: "dim", "shadow": "cyan", "ab": "blue", "canary": "magenta"}
OUTCOME_STYLES = {"promoted": "bold green", "rolled_back": "bold red", "undone": "red", "running": "bold"}


class Segment(NamedTuple):
    """Time spent in one stage; steps of the same stage are one."""

    stage: str
    seconds: float


class Row(NamedTuple):
    state: RolloutState
    segments: tuple[Segment, ...]
    duration_s: float
    reason: str

    def as_json(self) -> dict[str, Any]:
        state = self.state
        return {
            "rollout_id": state.rollout_id,
            "model": state.model,
            "kind": state.kind,
            "challenger": state.challenger,
            "champion": state.champion,
            "state": state.state,
            "stage": words.stage_of(state),
            "started_at": state.started_at.isoformat(),
            "duration_s": self.duration_s,
            "stages": [segment._asdict() for segment in self.segments],
            "reason": self.reason,
        }


def timeline(ledger: Ledger, model: str | None = None, most: int = 50) -> list[Row]:
    """The newest rollouts, oldest of them first."""
    now = datetime.now(UTC)
    return [
        row_of(state, ledger.rollouts.decisions(state.rollout_id), now) for state in all_rollouts(ledger, model)[-most:]
    ]


def row_of(state: RolloutState, decisions: Sequence[RolloutDecision], now: datetime) -> Row:
    end = now
    if state.state != "running":
        end = state.ended_at or (decisions[-1].decided_at if decisions else state.entered_at)
    reason = decisions[-1].reason if decisions else ""
    return Row(state, tuple(_segments(state, decisions, end)), words.elapsed_s(state.started_at, end), reason)


def _segments(state: RolloutState, decisions: Sequence[RolloutDecision], end: datetime) -> list[Segment]:
    stage, since, told = WAITING, state.started_at, []
    for decision in decisions:
        if decision.to_stage == stage or decision.action == "hold" or decision.decided_at > end:
            continue
        told.append(Segment(stage, words.elapsed_s(since, decision.decided_at)))
        stage, since = decision.to_stage, decision.decided_at
    if stage in _LETTERS:
        told.append(Segment(stage, words.elapsed_s(since, end)))
    return [segment for segment in told if segment.seconds > 0]


def stage_bar(segments: Sequence[Segment], width: int = 16) -> Text:
    """Time by stage, a letter each, so that it reads without colour: s shadow, a A/B, c canary, a dot waiting."""
    total = sum(segment.seconds for segment in segments)
    bar, before_s, column = Text(), 0.0, 0
    for segment in segments:
        before_s += segment.seconds
        until = max(column + 1, round(width * before_s / total)) if total else column
        bar.append(_LETTERS.get(segment.stage, "?") * (until - column), style=_COLOURS.get(segment.stage, ""))
        column = until
    return bar


def timeline_lines(rows: Sequence[Row]) -> Iterator[RenderableType]:
    """Two lines a rollout, so that it fits a narrow terminal; the newest one last, where a terminal shows it."""
    if not rows:
        yield Text("no rollout yet: the first packaged version of a model begins one")
        return
    width = max(len(row.state.rollout_id) for row in rows)
    for row in rows:
        state = row.state
        line = Text.assemble(
            (state.rollout_id.ljust(width), "bold"),
            f"  {state.started_at:%m-%d %H:%M}  {words.duration_in_words(row.duration_s):12}",
        )
        line.append_text(stage_bar(row.segments)).pad_right(max(0, width + 45 - line.cell_len))
        yield line.append(words.stage_of(state), style=OUTCOME_STYLES.get(state.state, ""))
        against = f"against {state.champion}" if state.champion else "the first version"
        yield Padding(Text(f"{against}: {row.reason}" if row.reason else against), (0, 0, 0, 4))
    yield Text("stages: s shadow, a A/B, c canary, . waiting; times are UTC", style="dim")
