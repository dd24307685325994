from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from flows.context import Context
from flows.rollout_plots import rollout_png
from flows.rollout_report import keep_rollout_report, report_markdown, write_rollout_report
from flows.rollout_series import (
    Point,
    drawn_metrics,
    effect_range,
    effect_ticks,
    observed_percent,
    tick_label,
    time_axis,
)
from flows.rollout_view import read_view
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.records import RolloutLook
from lake.settings import Settings
from tests.rollout_story import BEGIN, LOOK_S, Story, check, promoted, rolled_back


def test_words_picture_and_decisions_are_kept_in_the_bucket(settings: Settings, bucket: Bucket, ledger: Ledger) -> None:
    rolled_back(ledger)
    report = write_rollout_report(Context(settings), "docs-v2-1")
    assert report.prefix == "reports/docs/rollout/docs-v2-1/"
    assert bucket.get(f"{report.prefix}report.png").startswith(b"\x89PNG")
    told = bucket.get(f"{report.prefix}report.md").decode()
    assert "## docs-v2-1: rolled back" in told and "![plots](report.png)" in told
    kept = json.loads(bucket.get(f"{report.prefix}decisions.json"))
    assert [made["action"] for made in kept["decisions"]] == ["start", "promote", "roll_back"]
    assert kept["decisions"][-1]["checks"] and kept["looks"]


def test_the_artifact_holds_the_picture(
    settings: Settings, bucket: Bucket, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(ledger)
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "prefect.artifacts.create_markdown_artifact", lambda text, **named: made.append({"text": text, **named})
    )
    assert keep_rollout_report(Context(settings), "docs-v2-1") == "reports/docs/rollout/docs-v2-1/"
    (artifact,) = made
    assert "(data:image/png;base64,iVBOR" in artifact["text"]
    assert (artifact["key"], artifact["description"]) == ("rollout", "docs-v2-1: promoted")


def test_every_decision_comes_with_its_evidence(ledger: Ledger) -> None:
    rolled_back(ledger)
    told = report_markdown(read_view(ledger, "docs-v2-1"))
    assert "Plan: shadow 100% → A/B 50% → canary 75% → full." in told
    assert "rolled back, ab → rolled_back: error_rate" in told
    assert told.count("| check | champion |") == 3  # as they stand, and at two decisions
    assert "WORSE: rolls back" in told


def test_what_a_process_has_said_is_no_markup(ledger: Ledger) -> None:
    story = Story(ledger).begun().enter(0)
    story.end("rolled_back", "gone; it last said: <img src=x onerror=alert(1)> | [a](http://evil) `b`\n# c")
    told = report_markdown(read_view(ledger, "docs-v2-1"))
    assert "<img" not in told and "&lt;img" in told
    assert "\\[a\\](http://evil)" in told and "\n# c" not in told


def test_the_picture_has_every_effect_and_its_margin(ledger: Ledger) -> None:
    promoted(ledger)
    pixels = imread(io.BytesIO(rollout_png(read_view(ledger, "docs-v2-1"))))
    assert pixels.shape[1] == 1210 and pixels.shape[0] > 800
    blue = np.isclose(pixels[..., :3], np.array([0, 0x72, 0xB2]) / 255, atol=0.02).all(axis=-1)
    assert blue.sum() > 1000  # the lines of the effects


def test_a_picture_is_drawn_of_next_to_nothing(ledger: Ledger) -> None:
    story = Story(ledger).begun()
    assert rollout_png(read_view(ledger, "docs-v2-1")).startswith(b"\x89PNG")
    story.enter(0).look(LOOK_S)
    assert rollout_png(read_view(ledger, "docs-v2-1")).startswith(b"\x89PNG")


def test_a_broken_split_is_drawn(ledger: Ledger) -> None:
    Story(ledger).begun().enter(0).look(10).enter(1).look(300, broken=True)
    view = read_view(ledger, "docs-v2-1")
    assert view.look is not None and view.look.split is not None and view.look.split.broken
    assert rollout_png(view).startswith(b"\x89PNG")


def test_the_time_axis_has_every_step_and_decision(ledger: Ledger) -> None:
    promoted(ledger)
    view = read_view(ledger, "docs-v2-1")
    axis = time_axis(view, view.looks)
    assert axis.unit == "minutes" and axis.end == 7.5
    assert [(step.begin, step.end, step.name) for step in axis.steps] == [
        (0.0, 1.5, "shadow 100%"),
        (1.5, 5.0, "A/B 50%"),
        (5.0, 7.5, "canary 75%"),
    ]
    assert [at for at, _ in axis.decided] == [0.0, 1.5, 4.0, 5.0, 7.5]
    assert drawn_metrics(view, view.looks)[:2] == ["error_rate", "latency_p50"]


def test_shadow_traffic_is_a_share_of_the_champions(ledger: Ledger) -> None:
    promoted(ledger)
    looks = ledger.rollout_looks.of("docs-v2-1")
    assert observed_percent(looks[0]) == 100.0
    assert 45 < (observed_percent(looks[40]) or 0) < 55
    empty = looks[0].model_dump() | {"champion_stats": {**looks[0].champion_stats.model_dump(), "n_requests": 0}}
    assert observed_percent(RolloutLook.model_validate(empty)) is None


def test_ranges_hold_what_matters_and_ticks_are_few() -> None:
    points = [Point(0.0, check(lower=-0.9, upper=0.9)), Point(1.0, check()), Point(2.0, check())]
    low, high = effect_range(points)
    assert low < -0.01 and 0.05 < high < 0.1  # the wide beginning is cut
    for is_ratio, ends in ((False, (low, high)), (False, (-1.0, 1.0)), (True, (0.9, 1.3)), (True, (0.05, 20.0))):
        ticks = effect_ticks(is_ratio, *ends)
        assert 1 <= len(ticks) <= 6 and all(ends[0] <= tick <= ends[1] for tick in ticks)
    assert [tick_label("error_rate", value) for value in (0.0, 0.02, -0.005)] == ["0", "+2 pt", "-0.5 pt"]
    assert tick_label("latency_p50", 1.5) == "×1.5"


def test_a_day_is_told_in_hours(ledger: Ledger) -> None:
    story = Story(ledger, began=BEGIN).begun().enter(0)
    story._at += timedelta(hours=20)
    story.look(LOOK_S)
    view = read_view(ledger, "docs-v2-1")
    assert time_axis(view, view.looks).unit == "hours"
