"""Heartbeats: they count upwards, one owner does not touch another's."""

from __future__ import annotations

from functools import partial

from lake.ledger import Ledger
from lake.ledger.heartbeats import Heartbeat
from tests.concurrently import concurrently


def test_each_beat_counts(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.heartbeats.beat("one")
    ledger.heartbeats.beat("two")
    assert sorted(ledger.heartbeats.all()) == [Heartbeat("one", 3), Heartbeat("two", 1)]


def test_an_owner_that_ends_is_forgotten_and_may_come_again(ledger: Ledger) -> None:
    ledger.heartbeats.beat("one")
    ledger.heartbeats.beat("two")
    ledger.heartbeats.forget("one")
    ledger.heartbeats.forget("one")  # again is harmless
    assert ledger.heartbeats.all() == [Heartbeat("two", 1)]
    ledger.heartbeats.beat("one")
    assert Heartbeat("one", 1) in ledger.heartbeats.all()


def test_no_beat_is_lost_among_threads(ledger: Ledger) -> None:
    """Also the first one, which enters the owner."""
    concurrently([partial(ledger.heartbeats.beat, f"owner-{n % 2}") for n in range(12)])
    assert sorted(ledger.heartbeats.all()) == [Heartbeat("owner-0", 6), Heartbeat("owner-1", 6)]
