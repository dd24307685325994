from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.counters import BEYOND_MS, Block, Counters, Snapshot, VersionCounters, added, block, quantile, stats_of

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def snapshot(at_s: float, uptime_s: int, counters: Counters | None = None) -> Snapshot:
    counted = () if counters is None else (VersionCounters(model="docs", version="v1", counters=counters),)
    return Snapshot(taken_at=BEGIN + timedelta(seconds=at_s), uptime_s=uptime_s, versions=counted)


def test_a_block_is_the_difference() -> None:
    before = Counters(
        n_answered=10,
        n_errors=1,
        n_latencies=11,
        latency_sum_ms=110,
        latency_buckets=((10.0, 11), (20.0, 11)),
        cpu_s=2.0,
    )
    after = Counters(
        n_answered=25,
        n_errors=6,
        n_assigned=9,
        n_latencies=33,
        latency_sum_ms=410,
        latency_buckets=((10.0, 11), (20.0, 31)),
        cpu_s=3.5,
    )
    found = block(snapshot(0, 100, before), snapshot(60, 160, after), "docs", "v1")
    assert found == Block(
        n_requests=20,
        n_errors=5,
        n_assigned=9,
        latencies=((20.0, 20), (BEYOND_MS, 2)),
        latency_sum_ms=300.0,
        cpu_s=1.5,
    )
    told = stats_of(found)
    assert (told.n_requests, told.n_errors) == (20, 5)
    assert told.latency_mean_ms == pytest.approx(300 / 22)


def test_a_version_that_was_not_asked_has_zeros() -> None:
    found = block(snapshot(0, 100), snapshot(60, 160), "docs", "v9")
    assert found == Block()
    told = stats_of(Block())
    assert (told.n_requests, told.latency_mean_ms, told.latency_p95_ms) == (0, 0.0, 0.0)


def test_a_replica_that_began_anew_tells_nothing_of_its_own() -> None:
    before = Counters(n_answered=10, n_first_tokens=9, first_token_buckets=((5.0, 9),), cpu_s=7.0)
    after = Counters(n_answered=12, n_first_tokens=1, first_token_buckets=((5.0, 1),), cpu_s=0.5)
    found = block(snapshot(0, 100, before), snapshot(60, 160, after), "docs", "v1")
    assert found == Block(n_requests=2)


def test_blocks_add_up_and_what_one_does_not_tell_the_sum_does_not() -> None:
    one = Block(n_requests=3, n_errors=1, latencies=((5.0, 2), (10.0, 1)), cpu_s=1.0)
    other = Block(n_requests=2, latencies=((10.0, 2),), cpu_s=None)
    assert added(one, other) == Block(n_requests=5, n_errors=1, latencies=((5.0, 2), (10.0, 3)))


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
    assert block(snapshot(0, 100, before), snapshot(60, uptime_s, counters), "docs", "v1") is None


@given(st.integers(0, 3))
def test_an_uptime_in_whole_seconds_is_no_restart(slack_s: int) -> None:
    assert block(snapshot(0, 100), snapshot(60, 160 - slack_s), "docs", "v1") is not None


def test_a_clock_that_was_set_back_is_no_evidence() -> None:
    assert block(snapshot(3600, 100), snapshot(0, 110), "docs", "v1") is None


def test_a_snapshot_survives_json() -> None:
    made = snapshot(0, 7, Counters(n_answered=3, latency_buckets=((0.5, 1), (1.0, 3)), n_latencies=3))
    assert Snapshot.model_validate(made.model_dump(mode="json")) == made


values = st.lists(st.floats(0.1, 99), min_size=1, max_size=50)
BOUNDS = (1.0, 5.0, 10.0, 25.0, 50.0, 100.0)


def buckets(observed: list[float]) -> list[tuple[float, int]]:
    edges = (0.0, *BOUNDS)
    return [(bound, sum(low < value <= bound for value in observed)) for low, bound in zip(edges, BOUNDS, strict=False)]


@given(values, st.floats(0.01, 0.99))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(observed: list[float], share: float) -> None:
    found = quantile(share, buckets(observed))
    rank = share * len(observed)
    true = next(value for n, value in enumerate(sorted(observed), start=1) if n >= rank)
    upper = next(bound for bound in BOUNDS if true <= bound)
    lower = max((bound for bound in BOUNDS if bound < true), default=0.0)
    assert lower <= found <= upper


@given(values, st.floats(0.01, 0.98))
def test_quantiles_grow(observed: list[float], share: float) -> None:
    counted = buckets(observed)
    assert quantile(share, counted) <= quantile(share + 0.01, counted)


def test_a_quantile_of_nothing_is_zero() -> None:
    assert quantile(0.95, []) == 0.0
