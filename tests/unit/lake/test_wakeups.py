"""Wake-ups: what an event has named is kept until a listing that began later has answered it."""

from __future__ import annotations

from functools import partial

from lake.ledger import Ledger
from lake.ledger.wakeups import MAX_KEY_CHARACTERS, Wakeup
from tests.concurrently import concurrently


def keys(pending: list[Wakeup]) -> list[str]:
    return [wakeup.key for wakeup in pending]


def test_they_are_kept_in_the_order_of_their_arrival(ledger: Ledger) -> None:
    assert ledger.wakeups.record([("tidemill", "inbox/docs/b.txt"), ("other", "x")], "sqs") == 2
    assert ledger.wakeups.record([("tidemill", "inbox/docs/a.txt")], "webhook") == 1
    pending = ledger.wakeups.pending()
    assert [(wakeup.bucket, wakeup.key) for wakeup in pending] == [
        ("tidemill", "inbox/docs/b.txt"),
        ("other", "x"),
        ("tidemill", "inbox/docs/a.txt"),
    ]
    assert pending == sorted(pending)
    assert keys(ledger.wakeups.pending(limit=2)) == ["inbox/docs/b.txt", "x"]


def test_only_what_was_answered_is_forgotten(ledger: Ledger) -> None:
    ledger.wakeups.record([("tidemill", "a")], "sqs")
    answered = ledger.wakeups.pending()
    ledger.wakeups.record([("tidemill", "a")], "sqs")  # the same key, written again after the listing has begun
    ledger.wakeups.forget(wakeup.number for wakeup in answered)
    left = ledger.wakeups.pending()
    assert keys(left) == ["a"]
    assert left[0].number > answered[0].number
    ledger.wakeups.forget(wakeup.number for wakeup in answered)  # again is harmless
    ledger.wakeups.forget([])
    assert ledger.wakeups.pending() == left


def test_a_number_is_never_given_twice(ledger: Ledger) -> None:
    """Else one that is forgotten late would take a newer one with it."""
    ledger.wakeups.record([("tidemill", "a")], "sqs")
    first = ledger.wakeups.pending()
    ledger.wakeups.forget(wakeup.number for wakeup in first)
    ledger.wakeups.record([("tidemill", "b")], "sqs")
    ledger.wakeups.forget(wakeup.number for wakeup in first)
    assert keys(ledger.wakeups.pending()) == ["b"]


def test_a_burst_is_kept_and_forgotten_whole(ledger: Ledger) -> None:
    named = [("tidemill", f"inbox/docs/{n}") for n in range(1_203)]
    assert ledger.wakeups.record(named, "sqs") == 1_203
    assert [(wakeup.bucket, wakeup.key) for wakeup in ledger.wakeups.pending()] == named
    ledger.wakeups.forget(wakeup.number for wakeup in ledger.wakeups.pending())
    assert ledger.wakeups.pending() == []


def test_a_key_that_no_object_can_have_is_left_out(ledger: Ledger) -> None:
    longest = "ü" * MAX_KEY_CHARACTERS
    assert ledger.wakeups.record([("tidemill", longest), ("tidemill", longest + "x")], "webhook") == 1
    assert keys(ledger.wakeups.pending()) == [longest]
    assert ledger.wakeups.record([], "sqs") == 0


def test_receivers_that_record_at_once_lose_nothing(ledger: Ledger) -> None:
    calls = [partial(ledger.wakeups.record, [("tidemill", f"{n}-{m}") for m in range(20)], "sqs") for n in range(6)]
    assert concurrently(calls) == [20] * 6
    assert len({wakeup.number for wakeup in ledger.wakeups.pending()}) == 120
