"""The ledger's first book: objects and drops, whatever order and however often the listing is seen."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import permutations

import pytest

from lake.ledger import Ledger
from lake.ledger.arrivals import MAX_UNREAD, drop_id_of
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
    ledger.arrivals.reconcile(MODEL, [refs], at(seconds))
    drop = ledger.arrivals.close_drop(MODEL, 0, at(seconds))
    assert drop is not None
    return drop


def object_states(ledger: Ledger) -> dict[tuple[str, str], tuple[str, bool]]:
    """`(name, etag)` → `(state, whether it is gone)`."""
    return {
        (found.key.removeprefix(f"inbox/{MODEL}/"), found.etag): (found.state, found.gone_at is not None)
        for found in ledger.arrivals.objects(MODEL)
    }


def finish(ledger: Ledger, drop: Drop) -> None:
    """Prepared and checked: the next one may come."""
    assert ledger.drops.move(drop.drop_id, "closed", "waiting", drop.closed_at)


@pytest.fixture
def other(settings: Settings, ledger: Ledger) -> Iterator[Ledger]:
    """The same ledger, as another process opens it."""
    opened = Ledger(settings)
    yield opened
    opened.engine.dispose()


def test_an_object_is_entered_once_however_often_it_is_listed(ledger: Ledger) -> None:
    assert ledger.arrivals.reconcile(MODEL, [[ref("a"), ref("b")]], at(0)) == 2
    assert ledger.arrivals.reconcile(MODEL, [[ref("b"), ref("a")]], at(1)) == 0
    assert ledger.arrivals.reconcile(MODEL, [[ref("b"), ref("c"), ref("a")]], at(2)) == 1


def test_a_drop_waits_until_nothing_has_come_for_the_settle_time(ledger: Ledger) -> None:
    ledger.arrivals.reconcile(MODEL, [[ref("a")]], at(0))
    assert ledger.arrivals.close_drop(MODEL, 3, at(2)) is None
    ledger.arrivals.reconcile(MODEL, [[ref("a"), ref("b")]], at(2))
    assert ledger.arrivals.close_drop(MODEL, 3, at(4)) is None
    drop = ledger.arrivals.close_drop(MODEL, 3, at(5))
    assert drop is not None
    assert [found.key for found in drop.objects] == [ref("a").key, ref("b").key]
    assert ledger.drops.get(drop.drop_id) == drop
    assert ledger.arrivals.close_drop(MODEL, 0, at(9)) is None


def test_the_id_of_a_drop_is_its_set_of_versions() -> None:
    refs = [ref("a"), ref("b"), ref("c", "e2")]
    assert len({drop_id_of(order) for order in permutations(refs)}) == 1
    assert drop_id_of(refs) != drop_id_of(refs[:2])
    assert drop_id_of(refs) != drop_id_of([ref("a"), ref("b"), ref("c", "e3")])


def test_models_do_not_see_each_other(ledger: Ledger) -> None:
    ledger.arrivals.reconcile(MODEL, [[ref("a")]], at(0))
    assert ledger.arrivals.close_drop("other", 0, at(1)) is None
    assert closed(ledger, ref("a")).model == MODEL
    assert ledger.drops.states("other") == []


def test_an_overwritten_object_is_a_new_version_in_a_new_drop(ledger: Ledger) -> None:
    first = closed(ledger, ref("a", "e1"))
    finish(ledger, first)
    second = closed(ledger, ref("a", "e2"), seconds=5)
    assert [found.etag for found in second.objects] == ["e2"]
    assert [(found.etag, drop_id) for found, drop_id in ledger.arrivals.drops_with_object(ref("a").key)] == [
        ("e1", first.drop_id),
        ("e2", second.drop_id),
    ]


def test_an_object_put_back_as_it_was_is_not_processed_twice(ledger: Ledger) -> None:
    finish(ledger, closed(ledger, ref("a", "e1")))
    finish(ledger, closed(ledger, ref("a", "e2"), seconds=5))
    assert ledger.arrivals.reconcile(MODEL, [[ref("a", "e1")]], at(9)) == 0
    assert ledger.arrivals.close_drop(MODEL, 0, at(9)) is None


def test_a_version_that_vanishes_before_its_drop_closes_is_left_out(ledger: Ledger) -> None:
    ledger.arrivals.reconcile(MODEL, [[ref("a"), ref("b", "e1")]], at(0))
    ledger.arrivals.reconcile(MODEL, [[ref("b", "e2")]], at(1))  # a deleted, b overwritten
    drop = ledger.arrivals.close_drop(MODEL, 0, at(2))
    assert drop is not None
    assert [(found.key, found.etag) for found in drop.objects] == [(ref("b").key, "e2")]


def test_a_version_that_comes_back_before_its_drop_is_waited_for_again(ledger: Ledger) -> None:
    ledger.arrivals.reconcile(MODEL, [[ref("a")]], at(0))
    ledger.arrivals.reconcile(MODEL, [[]], at(1))
    assert ledger.arrivals.close_drop(MODEL, 0, at(2)) is None
    ledger.arrivals.reconcile(MODEL, [[ref("a")]], at(10))
    assert ledger.arrivals.close_drop(MODEL, 3, at(11)) is None
    assert ledger.arrivals.close_drop(MODEL, 3, at(13)) is not None


def test_an_assigned_object_that_is_deleted_stays_in_its_drop(ledger: Ledger) -> None:
    drop = closed(ledger, ref("a"), ref("b"))
    ledger.arrivals.reconcile(MODEL, [[]], at(5))
    assert ledger.drops.get(drop.drop_id) == drop


@pytest.mark.parametrize("round_", range(5))
def test_watchers_that_look_at_once_make_one_drop(ledger: Ledger, other: Ledger, round_: int) -> None:
    def look(book: Ledger) -> Drop | None:
        book.arrivals.reconcile(MODEL, [[ref(f"{n}") for n in range(20)]], at(0))
        return book.arrivals.close_drop(MODEL, 0, at(1))

    made = [drop for drop in concurrently([partial(look, book) for book in [ledger, other] * 3]) if drop is not None]
    assert len(made) == 1
    assert len(made[0].objects) == 20
    assert [state.drop_id for state in ledger.drops.states()] == [made[0].drop_id]


def test_what_arrives_while_a_drop_is_queued_or_under_way_merges_into_the_next(ledger: Ledger) -> None:
    first = closed(ledger, ref("a"))
    refs = [ref("a")]
    for n, state in enumerate((("closed", "preparing"), ("preparing", "waiting"), ("waiting", "training"))):
        refs.append(ref(f"later-{n}"))
        ledger.arrivals.reconcile(MODEL, [refs], at(10 + n))
        if state[0] != "waiting":
            assert ledger.arrivals.close_drop(MODEL, 0, at(20 + n)) is None
        assert ledger.drops.move(first.drop_id, *state, at(20 + n))
    assert ledger.arrivals.close_drop(MODEL, 0, at(30)) is None  # it trains
    assert ledger.drops.move(first.drop_id, "training", "trained", at(31))
    drop = ledger.arrivals.close_drop(MODEL, 0, at(32))
    assert drop is not None
    assert [found.key for found in drop.objects] == [found.key for found in refs[1:]]


def test_a_burst_of_ten_thousand_objects_is_one_drop(ledger: Ledger) -> None:
    refs = [ref(f"{n:05}") for n in range(10_000)]
    assert ledger.arrivals.reconcile(MODEL, (refs[n : n + 1_000] for n in range(0, 10_000, 1_000)), at(0)) == 10_000
    drop = ledger.arrivals.close_drop(MODEL, 1, at(2))
    assert drop is not None
    assert len(drop.objects) == 10_000
    assert ledger.arrivals.close_drop(MODEL, 1, at(9)) is None


def test_a_full_drop_closes_before_its_objects_have_settled(ledger: Ledger) -> None:
    for n in range(5):
        ledger.arrivals.reconcile(MODEL, [[ref(f"{m}") for m in range(n + 1)]], at(n))
    drop = ledger.arrivals.close_drop(MODEL, 60, at(5), max_objects=3)
    assert drop is not None
    assert [found.key for found in drop.objects] == [ref(f"{n}").key for n in range(3)]  # those that came first
    finish(ledger, drop)
    assert ledger.arrivals.close_drop(MODEL, 60, at(6), max_objects=3) is None
    rest = ledger.arrivals.close_drop(MODEL, 60, at(6), max_bytes=13)
    assert rest is not None
    assert [found.key for found in rest.objects] == [ref("3").key]  # of 7 bytes each, one fits


def test_objects_that_never_stop_arriving_make_a_drop_once_per_longest_wait(ledger: Ledger) -> None:
    refs, closed_at = [], []
    for second in range(25):
        refs.append(ref(f"{second:02}"))
        ledger.arrivals.reconcile(MODEL, [refs], at(second))
        drop = ledger.arrivals.close_drop(MODEL, 3, at(second), max_wait_s=10)
        if drop is not None:
            closed_at.append((second, len(drop.objects)))
            finish(ledger, drop)
    assert closed_at == [(10, 11), (21, 11)]


def test_a_trickle_makes_a_drop_once_per_settle_window(ledger: Ledger) -> None:
    refs = []
    for second in range(0, 50, 5):
        refs.append(ref(f"{second:02}"))
        ledger.arrivals.reconcile(MODEL, [refs], at(second))
        assert ledger.arrivals.close_drop(MODEL, 3, at(second + 2)) is None
        drop = ledger.arrivals.close_drop(MODEL, 3, at(second + 3))
        assert drop is not None
        assert [found.key for found in drop.objects] == [refs[-1].key]
        finish(ledger, drop)


def test_an_object_larger_than_a_drop_may_be_is_a_drop_of_its_own(ledger: Ledger) -> None:
    ledger.arrivals.reconcile(MODEL, [[ref("a"), ref("b")]], at(0))
    drop = ledger.arrivals.close_drop(MODEL, 60, at(1), max_bytes=1)
    assert drop is not None
    assert len(drop.objects) == 1


def test_a_clock_that_goes_back_does_not_hold_up_a_drop(ledger: Ledger) -> None:
    ledger.arrivals.reconcile(MODEL, [[ref("a")]], at(3600))
    assert ledger.arrivals.close_drop(MODEL, 3, at(0)) is not None


def test_overwritten_and_deleted_versions_are_recorded(ledger: Ledger) -> None:
    finish(ledger, closed(ledger, ref("a", "e1"), ref("b"), ref("c")))
    ledger.arrivals.reconcile(MODEL, [[ref("a", "e2"), ref("b")]], at(5))
    assert object_states(ledger) == {
        ("a", "e1"): ("assigned", True),
        ("a", "e2"): ("seen", False),
        ("b", "e1"): ("assigned", False),
        ("c", "e1"): ("assigned", True),
    }
    ledger.arrivals.reconcile(MODEL, [[ref("a", "e1"), ref("b"), ref("c")]], at(9))  # all as it was
    assert object_states(ledger) == {
        ("a", "e1"): ("assigned", False),
        ("a", "e2"): ("deleted", True),
        ("b", "e1"): ("assigned", False),
        ("c", "e1"): ("assigned", False),
    }


def test_part_of_a_listing_tells_what_is_new_and_nothing_of_the_rest(ledger: Ledger) -> None:
    closed(ledger, ref("a"), ref("b"))
    assert ledger.arrivals.reconcile(MODEL, [[ref("c")]], at(5), whole=False) == 1
    assert object_states(ledger)["a", "e1"] == ("assigned", False)


def test_asked_for_by_its_key_an_object_is_new_overwritten_or_gone(ledger: Ledger) -> None:
    closed(ledger, ref("a"), ref("b"))
    keys = [ref(name).key for name in "abc"]
    assert ledger.arrivals.reconcile(MODEL, [[ref("a", "e2"), ref("c")]], at(5), whole=False, keys=keys) == 2
    assert object_states(ledger) == {
        ("a", "e1"): ("assigned", True),
        ("a", "e2"): ("seen", False),
        ("b", "e1"): ("assigned", True),
        ("c", "e1"): ("seen", False),
    }


def test_a_listing_that_breaks_off_marks_nothing_as_gone(ledger: Ledger) -> None:
    closed(ledger, ref("a"), ref("z"))

    def breaks() -> Iterator[list[ObjectRef]]:
        yield [ref("a"), ref("b")]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        ledger.arrivals.reconcile(MODEL, breaks(), at(5))
    assert object_states(ledger) == {
        ("a", "e1"): ("assigned", False),
        ("b", "e1"): ("seen", False),
        ("z", "e1"): ("assigned", False),
    }


def test_what_came_after_a_listing_began_is_not_taken_for_gone(ledger: Ledger) -> None:
    def slow() -> Iterator[list[ObjectRef]]:
        yield [ref("a")]
        ledger.arrivals.reconcile(MODEL, [[ref("0")]], at(6), whole=False)  # an event, while this listing is past it

    ledger.arrivals.reconcile(MODEL, slow(), at(5))
    assert object_states(ledger)["0", "e1"] == ("seen", False)


def test_an_object_that_changed_while_it_was_read_comes_again_when_it_is_listed_again(ledger: Ledger) -> None:
    """Overwritten and put back within one preparation: nobody has read it yet."""
    drop = closed(ledger, ref("a"))
    ledger.arrivals.mark_unread(drop.drop_id, {ref("a").key: "source_changed"})
    finish(ledger, drop)
    assert object_states(ledger) == {("a", "e1"): ("unread", False)}
    assert ledger.arrivals.reconcile(MODEL, [[ref("a")]], at(5)) == 1
    again = ledger.arrivals.close_drop(MODEL, 0, at(6))
    assert again is not None
    assert again.objects == drop.objects
    assert again.drop_id != drop.drop_id


def test_an_object_that_is_listed_and_never_given_out_is_left_alone_in_the_end(ledger: Ledger) -> None:
    """A store may list a name that it has garbled."""
    for attempt in range(MAX_UNREAD):
        assert ledger.arrivals.reconcile(MODEL, [[ref("a")]], at(attempt)) == 1
        drop = ledger.arrivals.close_drop(MODEL, 0, at(attempt))
        assert drop is not None
        ledger.arrivals.mark_unread(drop.drop_id, {ref("a").key: "source_changed"})
        finish(ledger, drop)
    assert ledger.arrivals.reconcile(MODEL, [[ref("a")]], at(9)) == 0
    assert ledger.arrivals.requeue_unread(drop.drop_id, at(10)) == 1  # an operator may ask again


def test_an_object_that_may_not_be_read_waits_for_an_operator(ledger: Ledger) -> None:
    drop = closed(ledger, ref("a"), ref("b"))
    ledger.arrivals.mark_unread(drop.drop_id, {ref("a").key: "access_denied"})
    finish(ledger, drop)
    assert ledger.arrivals.reconcile(MODEL, [[ref("a"), ref("b")]], at(5)) == 0
    assert ledger.arrivals.requeue_unread(drop.drop_id, at(6)) == 1
    again = ledger.arrivals.close_drop(MODEL, 0, at(7))
    assert again is not None
    assert again.objects == (ref("a"),)


def test_objects_are_found_by_state_drop_and_key(ledger: Ledger) -> None:
    drop = closed(ledger, ref("100%"), ref("100_"))
    ledger.arrivals.reconcile(MODEL, [[ref("100%"), ref("100_"), ref("new")]], at(5))
    assert {found.key for found in ledger.arrivals.objects(drop_id=drop.drop_id)} == {ref("100%").key, ref("100_").key}
    assert [found.key for found in ledger.arrivals.objects(state="seen")] == [ref("new").key]
    assert [found.key for found in ledger.arrivals.objects(key_contains="0%")] == [ref("100%").key]
    assert ledger.arrivals.counts() == {(MODEL, "assigned"): 2, (MODEL, "seen"): 1}
