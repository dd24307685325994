from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.envoy_stats import Counters, Snapshot, VersionCounters, quantile, window

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def snapshot(at_s: float, uptime_s: int, counters: Counters | None = None) -> Snapshot:
    counted = () if counters is None else (VersionCounters(model="docs", version="v1", counters=counters),)
    return Snapshot(taken_at=BEGIN + timedelta(seconds=at_s), uptime_s=uptime_s, versions=counted)


def test_a_window_is_the_difference() -> None:
    before = Counters(
        n_answered=10, n_errors=1, n_latencies=11, latency_sum_ms=110, latency_buckets=((10.0, 11), (20.0, 11))
    )
    after = Counters(
        n_answered=25, n_errors=6, n_latencies=31, latency_sum_ms=410, latency_buckets=((10.0, 11), (20.0, 31))
    )
    found = window(snapshot(0, 100, before), snapshot(60, 160, after), "docs", "v1")
    assert found is not None
    assert (found.n_requests, found.n_errors, found.latency_mean_ms) == (20, 5, 15.0)
    assert found.latency_p95_ms == pytest.approx(19.5)


def test_a_version_that_was_not_asked_has_zeros() -> None:
    found = window(snapshot(0, 100), snapshot(60, 160), "docs", "v9")
    assert found is not None
    assert (found.n_requests, found.latency_mean_ms, found.latency_p95_ms) == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("uptime_s", "counters"),
    [
        (5, Counters(n_answered=100)),  # uptime went back
        (130, Counters(n_answered=100)),  # up for half of the time that passed
        (160, Counters(n_answered=3)),  # a cluster that was removed and added counts from zero
        (160, Counters(n_answered=100, n_errors=0)),
    ],
)
def test_counters_that_began_anew_are_no_evidence(uptime_s: int, counters: Counters) -> None:
    before = Counters(n_answered=10, n_errors=2)
    assert window(snapshot(0, 100, before), snapshot(60, uptime_s, counters), "docs", "v1") is None


@given(st.integers(0, 3))
def test_an_uptime_in_whole_seconds_is_no_restart(slack_s: int) -> None:
    assert window(snapshot(0, 100), snapshot(60, 160 - slack_s), "docs", "v1") is not None


def test_a_snapshot_survives_json() -> None:
    made = snapshot(0, 7, Counters(n_answered=3, latency_buckets=((0.5, 1), (1.0, 3)), n_latencies=3))
    assert Snapshot.model_validate(made.model_dump(mode="json")) == made


values = st.lists(st.floats(0.1, 99), min_size=1, max_size=50)
BOUNDS = (1.0, 5.0, 10.0, 25.0, 50.0, 100.0)


def buckets(observed: list[float]) -> list[tuple[float, int]]:
    return [(bound, sum(value <= bound for value in observed)) for bound in BOUNDS]


@given(values, st.floats(0.01, 0.99))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(observed: list[float], share: float) -> None:
    found = quantile(share, buckets(observed), len(observed))
    rank = share * len(observed)
    true = next(value for n, value in enumerate(sorted(observed), start=1) if n >= rank)
    upper = next(bound for bound in BOUNDS if true <= bound)
    lower = max((bound for bound in BOUNDS if bound < true), default=0.0)
    assert lower <= found <= upper


@given(values, st.floats(0.01, 0.98))
def test_quantiles_grow(observed: list[float], share: float) -> None:
    counted = buckets(observed)
    assert quantile(share, counted, len(observed)) <= quantile(share + 0.01, counted, len(observed))


def test_a_quantile_of_nothing_is_zero() -> None:
    assert quantile(0.95, [], 0) == 0.0
