"""The ledger's first book: objects and drops, whatever order and however often the listing is seen."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import permutations

import pytest

from lake.ledger import Ledger
from lake.ledger.arrivals import MAX_ATTEMPTS, drop_id_of
from lake.records import Drop, ObjectRef
from lake.settings import Settings
from tests.concurrently import concurrently

MODEL = "docs"
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ref(key: str, etag: str = "e1") -> ObjectRef:
    return ObjectRef(bucket="tidemill", key=f"inbox/{MODEL}/{key}", etag=etag, size_bytes=7, last_modified=START)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def closed(ledger: Ledger, *refs: ObjectRef, seconds: float = 0) -> Drop:
    """The drop that these objects make."""
    ledger.arrivals.reconcile(MODEL, refs, at(seconds))
    drop = ledger.arrivals.close_drop(MODEL, 0, at(seconds))
    assert drop is not None
    return drop


def state_of(ledger: Ledger, drop_id: str) -> tuple[str, int, str | None]:
    found = next(state for state in ledger.arrivals.states(MODEL) if state.drop_id == drop_id)
    return found.state, found.attempts, found.message


@pytest.fixture
def other(settings: Settings, ledger: Ledger) -> Iterator[Ledger]:
    """The same ledger, as another process opens it."""
    opened = Ledger(settings)
    yield opened
    opened.engine.dispose()


def test_an_object_is_entered_once_however_often_it_is_listed(ledger: Ledger) -> None:
    assert ledger.arrivals.reconcile(MODEL, [ref("a"), ref("b")], at(0)) == 2
    assert ledger.arrivals.reconcile(MODEL, [ref("b"), ref("a")], at(1)) == 0
    assert ledger.arrivals.reconcile(MODEL, [ref("b"), ref("c"), ref("a")], at(2)) == 1


def test_a_drop_waits_until_nothing_has_come_for_the_settle_time(ledger: Ledger) -> None:
    ledger.arrivals.reconcile(MODEL, [ref("a")], at(0))
    assert ledger.arrivals.close_drop(MODEL, 3, at(2)) is None
    ledger.arrivals.reconcile(MODEL, [ref("a"), ref("b")], at(2))
    assert ledger.arrivals.close_drop(MODEL, 3, at(4)) is None
    drop = ledger.arrivals.close_drop(MODEL, 3, at(5))
    assert drop is not None
    assert [found.key for found in drop.objects] == [ref("a").key, ref("b").key]
    assert ledger.arrivals.drop(drop.drop_id) == drop
    assert ledger.arrivals.close_drop(MODEL, 0, at(9)) is None


def test_the_id_of_a_drop_is_its_set_of_versions() -> None:
    refs = [ref("a"), ref("b"), ref("c", "e2")]
    assert len({drop_id_of(order) for order in permutations(refs)}) == 1
    assert drop_id_of(refs) != drop_id_of(refs[:2])
    assert drop_id_of(refs) != drop_id_of([ref("a"), ref("b"), ref("c", "e3")])


def test_models_do_not_see_each_other(ledger: Ledger) -> None:
    ledger.arrivals.reconcile(MODEL, [ref("a")], at(0))
    assert ledger.arrivals.close_drop("other", 0, at(1)) is None
    assert closed(ledger, ref("a")).model == MODEL
    assert ledger.arrivals.states("other") == []


def test_an_overwritten_object_is_a_new_version_in_a_new_drop(ledger: Ledger) -> None:
    first = closed(ledger, ref("a", "e1"))
    second = closed(ledger, ref("a", "e2"), seconds=5)
    assert [found.etag for found in second.objects] == ["e2"]
    assert [(found.etag, drop_id) for found, drop_id in ledger.arrivals.drops_with_object(ref("a").key)] == [
        ("e1", first.drop_id),
        ("e2", second.drop_id),
    ]


def test_an_object_put_back_as_it_was_is_not_processed_twice(ledger: Ledger) -> None:
    closed(ledger, ref("a", "e1"))
    closed(ledger, ref("a", "e2"), seconds=5)
    assert ledger.arrivals.reconcile(MODEL, [ref("a", "e1")], at(9)) == 0
    assert ledger.arrivals.close_drop(MODEL, 0, at(9)) is None


def test_a_version_that_vanishes_before_its_drop_closes_is_left_out(ledger: Ledger) -> None:
    ledger.arrivals.reconcile(MODEL, [ref("a"), ref("b", "e1")], at(0))
    ledger.arrivals.reconcile(MODEL, [ref("b", "e2")], at(1))  # a deleted, b overwritten
    drop = ledger.arrivals.close_drop(MODEL, 0, at(2))
    assert drop is not None
    assert [(found.key, found.etag) for found in drop.objects] == [(ref("b").key, "e2")]


def test_a_version_that_comes_back_before_its_drop_is_waited_for_again(ledger: Ledger) -> None:
    ledger.arrivals.reconcile(MODEL, [ref("a")], at(0))
    ledger.arrivals.reconcile(MODEL, [], at(1))
    assert ledger.arrivals.close_drop(MODEL, 0, at(2)) is None
    ledger.arrivals.reconcile(MODEL, [ref("a")], at(10))
    assert ledger.arrivals.close_drop(MODEL, 3, at(11)) is None
    assert ledger.arrivals.close_drop(MODEL, 3, at(13)) is not None


def test_an_assigned_object_that_is_deleted_stays_in_its_drop(ledger: Ledger) -> None:
    drop = closed(ledger, ref("a"), ref("b"))
    ledger.arrivals.reconcile(MODEL, [], at(5))
    assert ledger.arrivals.drop(drop.drop_id) == drop


def test_at_most_one_drop_of_a_model_is_under_way(ledger: Ledger) -> None:
    first, second = closed(ledger, ref("a")), closed(ledger, ref("b"), seconds=5)
    assert ledger.arrivals.next_closed(MODEL) == first.drop_id
    assert ledger.arrivals.claim(first.drop_id, "me", at(6)) == first
    assert ledger.arrivals.claim(first.drop_id, "me", at(6)) == first  # again is harmless
    assert ledger.arrivals.claim(first.drop_id, "you", at(6)) is None
    assert ledger.arrivals.claim(second.drop_id, "you", at(6)) is None
    assert ledger.arrivals.next_closed(MODEL) is None
    assert ledger.arrivals.move(first.drop_id, "preparing", "waiting", at(7))
    assert ledger.arrivals.next_closed(MODEL) == second.drop_id
    assert ledger.arrivals.move(first.drop_id, "waiting", "training", at(8), owner="me")
    assert ledger.arrivals.claim(second.drop_id, "you", at(9)) is None
    assert ledger.arrivals.move(first.drop_id, "training", "trained", at(9))
    assert ledger.arrivals.claim(second.drop_id, "you", at(9)) == second


def test_another_model_s_drop_does_not_wait(ledger: Ledger) -> None:
    mine = closed(ledger, ref("a"))
    ledger.arrivals.reconcile("other", [ref("a", "x")], at(0))
    theirs = ledger.arrivals.close_drop("other", 0, at(1))
    assert theirs is not None
    assert ledger.arrivals.claim(mine.drop_id, "me", at(2)) is not None
    assert ledger.arrivals.claim(theirs.drop_id, "me", at(2)) is not None


def test_an_unknown_drop_cannot_be_claimed(ledger: Ledger) -> None:
    assert ledger.arrivals.claim("d123", "me", at(0)) is None
    assert ledger.arrivals.drop("d123") is None


@pytest.mark.parametrize("state", ["waiting", "training", "trained"])
def test_a_drop_that_is_further_on_cannot_be_claimed(ledger: Ledger, state: str) -> None:
    drop = closed(ledger, ref("a"))
    assert ledger.arrivals.move(drop.drop_id, "closed", state, at(1))
    assert ledger.arrivals.claim(drop.drop_id, "me", at(2)) is None


@pytest.mark.parametrize("state", ["refused", "failed"])
def test_an_operator_may_try_a_bad_drop_again(ledger: Ledger, state: str) -> None:
    drop = closed(ledger, ref("a"))
    assert ledger.arrivals.move(drop.drop_id, "closed", state, at(1))
    assert ledger.arrivals.next_closed(MODEL) is None  # the watcher does not
    assert ledger.arrivals.claim(drop.drop_id, "operator", at(2)) == drop


def test_a_state_moves_only_from_where_it_is_expected(ledger: Ledger) -> None:
    drop = closed(ledger, ref("a"))
    assert not ledger.arrivals.move(drop.drop_id, "preparing", "waiting", at(1))
    assert ledger.arrivals.move(drop.drop_id, "closed", "refused", at(1), message="too few documents")
    assert state_of(ledger, drop.drop_id) == ("refused", 0, "too few documents")


def test_a_drop_that_keeps_failing_is_tried_a_bounded_number_of_times(ledger: Ledger) -> None:
    drop = closed(ledger, ref("a"))
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert ledger.arrivals.claim(drop.drop_id, "me", at(attempt)) is not None
        ledger.arrivals.give_back(drop.drop_id, "the store was away", at(attempt))
        expected = "closed" if attempt < MAX_ATTEMPTS else "failed"
        assert state_of(ledger, drop.drop_id) == (expected, attempt, "the store was away")
    assert ledger.arrivals.next_closed(MODEL) is None


def test_giving_back_what_has_gone_on_changes_nothing(ledger: Ledger) -> None:
    drop = closed(ledger, ref("a"))
    ledger.arrivals.claim(drop.drop_id, "me", at(1))
    ledger.arrivals.move(drop.drop_id, "preparing", "waiting", at(2))
    ledger.arrivals.give_back(drop.drop_id, "late", at(3))
    assert state_of(ledger, drop.drop_id)[0] == "waiting"


def test_the_drops_of_a_dead_owner_are_taken_up_again(ledger: Ledger) -> None:
    drop = closed(ledger, ref("a"))
    ledger.arrivals.claim(drop.drop_id, "dead", at(1))
    assert ledger.arrivals.owners() == {"dead"}
    assert ledger.arrivals.release("alive", at(2)) == []
    assert ledger.arrivals.release("dead", at(2)) == [drop.drop_id]
    assert ledger.arrivals.owners() == set()
    assert ledger.arrivals.next_closed(MODEL) == drop.drop_id


def test_a_drop_that_kills_its_process_every_time_fails_in_the_end(ledger: Ledger) -> None:
    drop = closed(ledger, ref("a"))
    for attempt in range(MAX_ATTEMPTS):
        assert ledger.arrivals.claim(drop.drop_id, f"owner-{attempt}", at(attempt)) is not None
        assert ledger.arrivals.release(f"owner-{attempt}", at(attempt)) == [drop.drop_id]
    state, _, message = state_of(ledger, drop.drop_id)
    assert state == "failed"
    assert message is not None and f"died {MAX_ATTEMPTS} times" in message


def test_a_drop_whose_training_died_waits_for_the_next_one(ledger: Ledger) -> None:
    drop = closed(ledger, ref("a"))
    ledger.arrivals.claim(drop.drop_id, "me", at(1))
    ledger.arrivals.move(drop.drop_id, "preparing", "waiting", at(2))
    ledger.arrivals.move(drop.drop_id, "waiting", "training", at(3), owner="trainer")
    assert ledger.arrivals.release("trainer", at(4)) == [drop.drop_id]
    assert state_of(ledger, drop.drop_id)[0] == "waiting"


@pytest.mark.parametrize("round_", range(5))
def test_of_processes_that_claim_at_once_one_gets_the_drop(ledger: Ledger, other: Ledger, round_: int) -> None:
    drop = closed(ledger, ref("a"))
    books = [ledger.arrivals, other.arrivals] * 4
    got = concurrently([partial(book.claim, drop.drop_id, f"o{n}", at(1)) for n, book in enumerate(books)])
    assert sum(claimed is not None for claimed in got) == 1
    assert state_of(ledger, drop.drop_id)[1] == 1


@pytest.mark.parametrize("round_", range(5))
def test_of_two_drops_claimed_at_once_one_is_under_way(ledger: Ledger, other: Ledger, round_: int) -> None:
    drops = [closed(ledger, ref(f"{n}"), seconds=n) for n in range(4)]
    books = [ledger.arrivals, other.arrivals] * 2
    got = concurrently(
        [partial(book.claim, drop.drop_id, "me", at(9)) for book, drop in zip(books, drops, strict=True)]
    )
    assert sum(claimed is not None for claimed in got) == 1


@pytest.mark.parametrize("round_", range(5))
def test_watchers_that_look_at_once_make_one_drop(ledger: Ledger, other: Ledger, round_: int) -> None:
    def look(book: Ledger) -> Drop | None:
        book.arrivals.reconcile(MODEL, [ref(f"{n}") for n in range(20)], at(0))
        return book.arrivals.close_drop(MODEL, 0, at(1))

    made = [drop for drop in concurrently([partial(look, book) for book in [ledger, other] * 3]) if drop is not None]
    assert len(made) == 1
    assert len(made[0].objects) == 20
    assert [state.drop_id for state in ledger.arrivals.states()] == [made[0].drop_id]
