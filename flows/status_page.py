"""The status pages as HTML: templates that escape everything, and the words that they are filled with. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from flows import rollout_words as words
from flows.rollout_timeline import WAITING, Row, Segment
from flows.rollout_view import RolloutView
from flows.status_svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, panels
from lake.ledger.alarms import Alarm
from lake.ledger.rollout_state import RolloutState

TEMPLATES = Path(__file__).parent / "templates"


class LiveModel(NamedTuple):
    """A model, its champion, and the rollout under way, if any."""

    name: str
    champion: str | None
    live_at: datetime | None
    running: RolloutState | None

    @property
    def stage(self) -> str:
        return words.stage_of(self.running) if self.running else ""


class Span(NamedTuple):
    """One stage in a timeline's bar."""

    stage: str
    x: float
    width: float
    told: str


def index_page(
    models: Sequence[LiveModel], rows: Sequence[Row], alarms: Sequence[Alarm], pulse: str, seen_at: datetime
) -> str:
    return _page("index.html", models=models, rows=rows, alarms=alarms, pulse=pulse, seen_at=seen_at)


def rollout_page(view: RolloutView, pulse: str) -> str:
    state, look = view.state, view.look
    step = state.step if state.state == "running" else None
    current = look if look is not None and look.step_index == state.step_index else None
    return _page(
        "rollout.html",
        view=view,
        ended=view.ended_at is not None,
        alarms=view.alarms,
        pulse=pulse,
        seen_at=view.seen_at,
        panels=panels(view),
        step=step,
        elapsed_s=current.elapsed_s if current else words.elapsed_s(state.entered_at, view.seen_at),
        n_requests=current.challenger_stats.n_requests if current else 0,
        took_s=words.elapsed_s(state.started_at, view.ended_at or view.seen_at),
    )


def refusal_page(heading: str, told: str, seen_at: datetime) -> str:
    return _page("refusal.html", heading=heading, told=told, seen_at=seen_at, alarms=())


def asset(name: str) -> bytes:
    return (TEMPLATES / name).read_bytes()


def _page(template: str, pulse: str = "", **values: Any) -> str:
    is_stalled = "STILL" in pulse or pulse.startswith("NO ")
    return _templates().get_template(template).render(pulse=pulse, is_stalled=is_stalled, **values)


def _spans(segments: Sequence[Segment], width: int) -> list[Span]:
    total = sum(segment.seconds for segment in segments) or 1.0
    spans, before_s = [], 0.0
    for segment in segments:
        x = width * before_s / total
        told = f"{_stage_name(segment.stage)} {words.duration_in_words(segment.seconds)}"
        spans.append(Span(segment.stage, round(x, 1), round(max(1.0, width * segment.seconds / total), 1), told))
        before_s += segment.seconds
    return spans


def _spoken(segments: Sequence[Segment]) -> str:
    return ", ".join(f"{_stage_name(part.stage)} {words.duration_in_words(part.seconds)}" for part in segments)


def _stage_name(stage: str) -> str:
    return "waiting" if stage == WAITING else words.STAGES.get(stage, stage)


@lru_cache(maxsize=1)
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        duration=words.duration_in_words,
        stage=words.stage_of,
        versus=words.versus,
        destination=words.destination,
        step=words.step_in_words,
        split=words.split_in_words,
        decision=words.decision_in_words,
        evidence_row=words.evidence_row,
        spans=_spans,
        spoken=_spoken,
    )
    made.globals.update(
        columns=words.EVIDENCE, width=WIDTH, height=HEIGHT, left=LEFT, right=RIGHT, top=TOP, bottom=BOTTOM, ended=False
    )
    return made
