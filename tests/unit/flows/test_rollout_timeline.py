from __future__ import annotations

import io
from datetime import timedelta

import pytest
from rich.console import Console

from flows.rollout_timeline import Segment, stage_bar, timeline, timeline_lines
from flows.rollout_view import all_rollouts, as_json, current, read_view, thinned
from lake.errors import TidemillError
from lake.ledger import Ledger
from tests.rollout_story import BEGIN, Story, promoted, rolled_back, under_way


@pytest.fixture
def three(ledger: Ledger) -> Ledger:
    promoted(ledger)
    rolled_back(ledger, challenger="v3", champion="v2", began=BEGIN + timedelta(hours=1))
    under_way(ledger, challenger="v4", champion="v2", began=BEGIN + timedelta(hours=2))
    return ledger


def test_time_is_told_by_stage(three: Ledger) -> None:
    first, second, third = timeline(three)
    assert first.segments == (Segment("shadow", 90.0), Segment("ab", 210.0), Segment("canary", 150.0))
    assert (first.duration_s, first.state.state) == (450.0, "promoted")
    assert second.segments == (Segment("shadow", 30.0), Segment("ab", 60.0))
    assert [segment.stage for segment in third.segments] == ["shadow", "ab", "canary"]
    assert second.reason.startswith("error_rate")


def test_newest_last_and_no_more_than_asked_for(three: Ledger) -> None:
    assert [row.state.challenger for row in timeline(three, most=2)] == ["v3", "v4"]
    assert timeline(three, model="other") == []


def test_bars_read_without_colour() -> None:
    assert stage_bar([Segment("pending", 5), Segment("shadow", 5), Segment("ab", 10)], 16).plain == "....ssssaaaaaaaa"
    assert stage_bar([Segment("shadow", 1), Segment("ab", 10_000)], 16).plain == "s" + "a" * 15  # a moment shows too
    assert stage_bar([]).plain == ""


@pytest.mark.parametrize("width", [80, 160])
def test_it_fits_a_narrow_terminal(three: Ledger, width: int) -> None:
    sink = io.StringIO()
    Console(file=sink, width=width).print(*timeline_lines(timeline(three)), sep="\n")
    lines = sink.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("docs-v2-1  03-02 09:00  7 min 30 s") and lines[0].rstrip().endswith("promoted")
    assert "against v1: v2 failed 9 of 742" in lines[1]


def test_nothing_yet_is_told(ledger: Ledger) -> None:
    (line,) = timeline_lines(timeline(ledger))
    assert "no rollout yet" in str(line)


def test_the_one_under_way_comes_before_a_newer_one_that_ended(ledger: Ledger) -> None:
    under_way(ledger)
    rolled_back(ledger, model="other", began=BEGIN + timedelta(hours=1))
    assert current(ledger, None).rollout_id == "docs-v2-1"
    assert current(ledger, "other").rollout_id == "other-v2-1"
    assert [state.rollout_id for state in all_rollouts(ledger)] == ["docs-v2-1", "other-v2-1"]


def test_an_unknown_rollout_names_known_ones(three: Ledger) -> None:
    with pytest.raises(TidemillError, match="docs-v2-1, docs-v3-1, docs-v4-1"):
        read_view(three, "docs-v9-1")


def test_thinned_looks_keep_the_ends_of_every_step(three: Ledger) -> None:
    looks = three.rollout_looks.of("docs-v2-1")
    few = thinned(looks, 8)
    assert len(few) < 16 < len(looks)
    assert (few[0], few[-1]) == (looks[0], looks[-1])
    for number, look in enumerate(looks[1:], start=1):
        if look.step_index != looks[number - 1].step_index:
            assert look in few and looks[number - 1] in few
    assert thinned(looks, 1000) == looks


def test_json_names_what_scripts_need(three: Ledger) -> None:
    told = as_json(read_view(three, "docs-v3-1"), most_looks=5)
    assert (told["state"], told["stage"], told["champion"]) == ("rolled_back", "rolled back", "v2")
    assert told["ended_at"] is not None and len(told["decisions"]) == 3 and 5 <= len(told["looks"]) <= 9


def test_a_rollout_that_only_waits(ledger: Ledger) -> None:
    Story(ledger, champion=None).begun()
    view = read_view(ledger, "docs-v2-1")
    assert (view.checks, view.look, view.ended_at, view.reason) == ((), None, None, "nothing was decided yet")
