from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flows import rollout_words as words
from lake.records import SplitResult
from tests.rollout_story import check


@pytest.mark.parametrize(
    ("metric", "effect", "told"),
    [
        ("error_rate", 0.0123, "+1.23 pt"),
        ("error_rate", -0.2, "-20.0 pt"),
        ("latency_p95", 1.256, "×1.26"),
        ("business:orders", 0.5, "×0.50"),
        ("perplexity", 0.3, "+0.30"),  # nats: no percentage
        ("agreement", None, "–"),
    ],
)
def test_an_effect_is_told_in_its_unit(metric: str, effect: float | None, told: str) -> None:
    assert words.effect_in_words(metric, effect) == told


@pytest.mark.parametrize(
    ("metric", "value", "told"),
    [
        ("error_rate", 0.0123, "1.23%"),
        ("latency_p50", 1234.4, "1,234 ms"),
        ("cpu_s", 0.5, "0.5 s"),
        ("feedback", None, "–"),
    ],
)
def test_a_value_is_told_in_its_unit(metric: str, value: float | None, told: str) -> None:
    assert words.value_in_words(metric, value) == told


def test_an_interval_bears_its_unit_once_and_tells_open_ends() -> None:
    assert words.interval_in_words(check()) == "-1.00 to +5.00 pt"
    assert words.interval_in_words(check(lower=None)) == "? to +5.00 pt"
    assert words.interval_in_words(check(lower=None, upper=None)) == "–"
    assert words.interval_in_words(check(metric="cpu_s", lower=0.9, upper=1.5, margin=1.5)) == "×0.90 to ×1.50"


def test_a_warning_does_not_read_like_a_rollback() -> None:
    assert words.verdict_in_words(check(verdict="worse")) == "WORSE: rolls back"
    assert words.verdict_in_words(check(verdict="worse", severity="warn")) == "worse: a warning"
    assert words.verdict_in_short(check(verdict="worse", severity="warn")) == "worse"
    assert words.verdict_in_short(check(verdict="no_data")) == "no data"


def test_a_broken_split_is_loud() -> None:
    split = SplitResult(share=0.5, n_champion=1000, n_challenger=800, p_value=1e-5, broken=True)
    assert words.split_in_words(split).startswith("BROKEN: 800 to the challenger, 1,000 to the champion, planned 50%")
    assert words.split_in_words(split.model_copy(update={"broken": False})).startswith("as planned")
    assert words.split_in_words(None) == "not judged yet"
    assert words.split_in_words(split.model_copy(update={"n_champion": 0, "n_challenger": 0})) == "not judged yet"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (59.6, "1 min"),
        (95, "1 min 35 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (270_000, "3 d 3 h"),
        (-5, "0 s"),
    ],
)
def test_durations(seconds: float, told: str) -> None:
    assert words.duration_in_words(seconds) == told


def test_a_clock_that_went_back_makes_no_negative_time() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert words.elapsed_s(now, now - timedelta(hours=1)) == 0.0


@pytest.mark.parametrize(("p_value", "told"), [(1.0, "1"), (0.31, "0.31"), (0.00123, "1e-03"), (0.0, "0")])
def test_p_values(p_value: float, told: str) -> None:
    assert words.p_value_in_words(p_value) == told
