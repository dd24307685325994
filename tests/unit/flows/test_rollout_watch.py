from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from itertools import pairwise

import pytest
from rich.console import Console

from flows import rollout_watch
from flows.rollout_view import Pulse
from flows.rollout_watch import watch
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.leases import Lease
from tests.rollout_story import Story, promoted, rolled_back, under_way


def seen(ledger: Ledger, *, width: int = 80, encoding: str = "utf-8", json_lines: bool = False) -> str:
    sink = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    watch(ledger, Console(file=sink, width=width), None, once=True, json_lines=json_lines)
    assert isinstance(sink.buffer, io.BytesIO)
    return sink.buffer.getvalue().decode(encoding)


def test_a_frame_tells_stage_split_time_samples_and_every_check(ledger: Ledger) -> None:
    story = under_way(ledger)
    ledger.leases.take("controller", "elsewhere:1", None)
    text = seen(ledger)
    assert text.startswith("docs-v2-1  v2 against v1: canary 75%\n")
    assert "step 3 of 3  1 min 5 s of at most 1 h, at least 2 min;" in text and "requests (400 needed)" in text
    assert "75% to v2" in text and "as planned:" in text
    assert "elsewhere:1 holds the lease" in text
    for check in story.plan.checks:
        assert f"\n{check.metric} " in text
    assert "went on, ab → canary: approved" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text  # not a terminal: no colour


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(ledger: Ledger, width: int) -> None:
    under_way(ledger)
    ledger.alarms.raised("controller", "no sign of life " * 10)
    text = seen(ledger, width=width)
    assert "ALARM" in text
    assert max(map(len, text.splitlines())) <= width


def test_a_terminal_without_unicode_gets_ascii(ledger: Ledger) -> None:
    rolled_back(ledger)
    text = seen(ledger, encoding="ascii")
    assert "WORSE" in text and "->" in text


def test_how_it_ended_is_told(ledger: Ledger) -> None:
    promoted(ledger)
    assert "promoted after 7 min 30 s: v2 failed" in seen(ledger, width=200)


def test_before_the_first_step_it_waits(ledger: Ledger) -> None:
    Story(ledger).begun()
    text = seen(ledger)
    assert "waiting for the challenger to be ready" in text
    assert "NO controller holds the lease" in text


def test_a_pause_names_the_command(ledger: Ledger) -> None:
    Story(ledger).begun().enter(0).look(30).enter(1).look(30)
    assert "tidemill rollout approve docs" in seen(ledger)


def test_no_rollout_at_all_is_told(ledger: Ledger) -> None:
    with pytest.raises(TidemillError, match="none at all"):
        seen(ledger)


def test_json_is_one_line_with_every_figure(ledger: Ledger) -> None:
    under_way(ledger)
    (line,) = seen(ledger, json_lines=True).splitlines()
    told = json.loads(line)
    assert (told["state"], told["stage"], told["step_index"]) == ("running", "canary 75%", 2)
    assert {check["metric"] for check in told["checks"]} >= {"error_rate", "latency_p50", "agreement"}


def ending(story: Story, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """End the story once it has been looked at twice."""
    looked = threading.Event()
    real, calls = rollout_watch._seen, []

    def spied(ledger: Ledger, rollout_id: str) -> object:
        calls.append(rollout_id)
        if len(calls) == 3:
            looked.set()
        return real(ledger, rollout_id)

    monkeypatch.setattr(rollout_watch, "_seen", spied)
    monkeypatch.setattr(rollout_watch, "POLL_S", 0.02)

    def end() -> None:
        assert looked.wait(20)
        story.end("rolled_back", "error_rate: too many")

    return end


@pytest.mark.parametrize("json_lines", [False, True])
def test_it_follows_until_the_rollout_ends(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, json_lines: bool) -> None:
    thread = threading.Thread(target=ending(under_way(ledger), monkeypatch))
    thread.start()
    sink = io.StringIO()
    ended = watch(ledger, Console(file=sink, width=80), None, once=False, json_lines=json_lines)
    thread.join()
    assert ended.state == "rolled_back"
    if json_lines:
        lines = [json.loads(line) for line in sink.getvalue().splitlines()]
        assert list(dict.fromkeys(line["state"] for line in lines)) == ["running", "rolled_back"]
        contents = [{name: value for name, value in line.items() if name != "seen_at"} for line in lines]
        assert all(one != other for one, other in pairwise(contents))  # only what has changed
    else:
        assert "rolled back, canary → rolled_back: error_rate: too many" in sink.getvalue()


def test_a_pulse_is_told_by_the_beat_alone() -> None:
    pulse = Pulse()
    assert pulse.seen(None, 0.0).startswith("NO controller")
    assert pulse.seen(Lease("controller", None, 3, 9), 0.0).startswith("NO controller")
    assert pulse.seen(Lease("controller", "elsewhere:1", 3, 9), 1.0) == "elsewhere:1 holds the lease"
    assert "STANDS STILL for 30 s" in pulse.seen(Lease("controller", "elsewhere:1", 3, 9), 31.0)
    assert pulse.seen(Lease("controller", "elsewhere:1", 3, 10), 32.0) == "elsewhere:1 holds the lease"
