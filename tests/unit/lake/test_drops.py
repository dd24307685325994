"""Drops in the ledger: from closed to trained, one at a time for each model, whoever dies on the way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.drops import BACKOFF_FIRST_S, BACKOFF_MAX_S, MAX_ATTEMPTS, backoff
from lake.ledger.tables import drops
from lake.records import Drop, ObjectRef
from lake.settings import Settings
from tests.concurrently import concurrently

MODEL = "docs"
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def closed(ledger: Ledger, name: str, model: str = MODEL) -> Drop:
    """A closed drop of one object, whatever else is queued."""
    ref = ObjectRef(bucket="b", key=f"inbox/{model}/{name}", etag="e", size_bytes=7, last_modified=START)
    ledger.arrivals.reconcile(model, [[ref]], START, whole=False)
    with ledger.engine.begin() as connection:
        queued = connection.execute(drops.select().where(drops.c.model == model, drops.c.state == "closed")).all()
        connection.execute(drops.update().where(drops.c.model == model).values(state="waiting"))
    drop = ledger.arrivals.close_drop(model, 0, at(len(queued)))
    assert drop is not None
    for row in queued:
        assert ledger.drops.move(row.drop_id, "waiting", "closed", row.updated_at)
    return drop


def next_of(ledger: Ledger, seconds: float = 1_000) -> str | None:
    found = ledger.drops.next_closed(MODEL, at(seconds))
    return found.drop_id if found else None


def state_of(ledger: Ledger, drop_id: str) -> tuple[str, int, str | None]:
    found = next(state for state in ledger.drops.states(MODEL) if state.drop_id == drop_id)
    return found.state, found.attempts, found.message


@pytest.fixture
def other(settings: Settings, ledger: Ledger) -> Iterator[Ledger]:
    """The same ledger, as another process opens it."""
    opened = Ledger(settings)
    yield opened
    opened.engine.dispose()


def test_at_most_one_drop_of_a_model_is_under_way(ledger: Ledger) -> None:
    first, second = closed(ledger, "a"), closed(ledger, "b")
    assert next_of(ledger) == first.drop_id
    assert ledger.drops.claim(first.drop_id, "me", at(6)) == first
    assert ledger.drops.claim(first.drop_id, "me", at(6)) == first  # again is harmless
    assert ledger.drops.claim(first.drop_id, "you", at(6)) is None
    assert ledger.drops.claim(second.drop_id, "you", at(6)) is None
    assert next_of(ledger) is None
    assert ledger.drops.move(first.drop_id, "preparing", "waiting", at(7))
    assert next_of(ledger) == second.drop_id
    assert ledger.drops.move(first.drop_id, "waiting", "training", at(8), owner="me")
    assert ledger.drops.claim(second.drop_id, "you", at(9)) is None
    assert ledger.drops.move(first.drop_id, "training", "trained", at(9))
    assert ledger.drops.claim(second.drop_id, "you", at(9)) == second


def test_another_model_s_drop_does_not_wait(ledger: Ledger) -> None:
    mine = closed(ledger, "a")
    theirs = closed(ledger, "b", "other")
    assert ledger.drops.claim(mine.drop_id, "me", at(2)) is not None
    assert ledger.drops.claim(theirs.drop_id, "me", at(2)) is not None


def test_an_unknown_drop_cannot_be_claimed(ledger: Ledger) -> None:
    assert ledger.drops.claim("d123", "me", at(0)) is None
    assert ledger.drops.get("d123") is None


@pytest.mark.parametrize("state", ["waiting", "training", "trained"])
def test_a_drop_that_is_further_on_cannot_be_claimed(ledger: Ledger, state: str) -> None:
    drop = closed(ledger, "a")
    assert ledger.drops.move(drop.drop_id, "closed", state, at(1))
    assert ledger.drops.claim(drop.drop_id, "me", at(2)) is None


@pytest.mark.parametrize("state", ["refused", "poison"])
def test_an_operator_may_try_a_bad_drop_again(ledger: Ledger, state: str) -> None:
    drop = closed(ledger, "a")
    assert ledger.drops.move(drop.drop_id, "closed", state, at(1))
    assert next_of(ledger) is None  # the watcher does not
    assert ledger.drops.claim(drop.drop_id, "operator", at(2)) == drop


def test_a_state_moves_only_from_where_it_is_expected(ledger: Ledger) -> None:
    drop = closed(ledger, "a")
    assert not ledger.drops.move(drop.drop_id, "preparing", "waiting", at(1))
    assert ledger.drops.move(drop.drop_id, "closed", "refused", at(1), message="too few documents")
    assert state_of(ledger, drop.drop_id) == ("refused", 0, "too few documents")


def test_a_drop_that_keeps_failing_is_tried_a_bounded_number_of_times(ledger: Ledger) -> None:
    drop = closed(ledger, "a")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert ledger.drops.claim(drop.drop_id, "me", at(attempt)) is not None
        ledger.drops.give_back(drop.drop_id, "me", "the store was away", at(attempt))
        expected = "closed" if attempt < MAX_ATTEMPTS else "poison"
        assert state_of(ledger, drop.drop_id) == (expected, attempt, "the store was away")
    assert next_of(ledger) is None


def test_giving_back_what_has_gone_on_changes_nothing(ledger: Ledger) -> None:
    drop = closed(ledger, "a")
    ledger.drops.claim(drop.drop_id, "me", at(1))
    ledger.drops.move(drop.drop_id, "preparing", "waiting", at(2))
    ledger.drops.give_back(drop.drop_id, "me", "late", at(3))
    assert state_of(ledger, drop.drop_id)[0] == "waiting"


def test_the_drops_of_a_dead_owner_are_taken_up_again(ledger: Ledger) -> None:
    drop = closed(ledger, "a")
    ledger.drops.claim(drop.drop_id, "dead", at(1))
    assert ledger.drops.owners() == {"dead"}
    assert ledger.drops.release("alive", at(2)) == []
    assert ledger.drops.release("dead", at(2)) == [drop.drop_id]
    assert ledger.drops.owners() == set()
    assert next_of(ledger, 2 + BACKOFF_FIRST_S) == drop.drop_id


def test_a_drop_that_kills_its_process_every_time_fails_in_the_end(ledger: Ledger) -> None:
    drop = closed(ledger, "a")
    for attempt in range(MAX_ATTEMPTS):
        assert ledger.drops.claim(drop.drop_id, f"owner-{attempt}", at(attempt)) is not None
        assert ledger.drops.release(f"owner-{attempt}", at(attempt)) == [drop.drop_id]
    state, _, message = state_of(ledger, drop.drop_id)
    assert state == "poison"
    assert message is not None and f"died, {MAX_ATTEMPTS} times" in message


def test_a_drop_whose_training_died_waits_for_the_next_one(ledger: Ledger) -> None:
    drop = closed(ledger, "a")
    ledger.drops.claim(drop.drop_id, "me", at(1))
    ledger.drops.move(drop.drop_id, "preparing", "waiting", at(2))
    ledger.drops.move(drop.drop_id, "waiting", "training", at(3), owner="trainer")
    assert ledger.drops.release("trainer", at(4)) == [drop.drop_id]
    assert state_of(ledger, drop.drop_id)[0] == "waiting"


@pytest.mark.parametrize("round_", range(5))
def test_of_processes_that_claim_at_once_one_gets_the_drop(ledger: Ledger, other: Ledger, round_: int) -> None:
    drop = closed(ledger, "a")
    books = [ledger.drops, other.drops] * 4
    got = concurrently([partial(book.claim, drop.drop_id, f"o{n}", at(1)) for n, book in enumerate(books)])
    assert sum(claimed is not None for claimed in got) == 1
    assert state_of(ledger, drop.drop_id)[1] == 1


@pytest.mark.parametrize("round_", range(5))
def test_of_two_drops_claimed_at_once_one_is_under_way(ledger: Ledger, other: Ledger, round_: int) -> None:
    drops = [closed(ledger, f"{n}") for n in range(4)]
    books = [ledger.drops, other.drops] * 2
    got = concurrently(
        [partial(book.claim, drop.drop_id, "me", at(9)) for book, drop in zip(books, drops, strict=True)]
    )
    assert sum(claimed is not None for claimed in got) == 1


def test_a_failed_drop_waits_before_it_is_tried_again_and_others_go_on(ledger: Ledger) -> None:
    bad, good = closed(ledger, "a"), closed(ledger, "b")
    assert ledger.drops.claim(bad.drop_id, "me", at(1)) is not None
    ledger.drops.give_back(bad.drop_id, "me", "the store was away", at(2))
    assert next_of(ledger, 2.5) == good.drop_id
    assert ledger.drops.claim(good.drop_id, "me", at(3)) is not None
    assert next_of(ledger, 4.5) is None  # one at a time
    assert ledger.drops.move(good.drop_id, "preparing", "waiting", at(5))
    assert next_of(ledger, 5) == bad.drop_id


def test_waits_double_up_to_a_limit() -> None:
    waits = [backoff(attempts).total_seconds() for attempts in range(1, 12)]
    assert waits[:4] == [BACKOFF_FIRST_S * factor for factor in (1, 2, 4, 8)]
    assert waits[-1] == BACKOFF_MAX_S


def test_a_clock_that_goes_back_does_not_make_a_wait_longer(ledger: Ledger) -> None:
    drop = closed(ledger, "a")
    ledger.drops.claim(drop.drop_id, "me", at(100_000))
    ledger.drops.give_back(drop.drop_id, "me", "away", at(100_000))
    assert next_of(ledger, 0) == drop.drop_id


def test_only_the_owner_gives_back_and_moves_on(ledger: Ledger) -> None:
    """A process that was taken for dead wakes up: the drop is another's."""
    drop = closed(ledger, "a")
    ledger.drops.claim(drop.drop_id, "zombie", at(1))
    ledger.drops.release("zombie", at(2))
    assert ledger.drops.claim(drop.drop_id, "heir", at(9)) is not None
    ledger.drops.give_back(drop.drop_id, "zombie", "late", at(10))
    assert not ledger.drops.move(drop.drop_id, "preparing", "waiting", at(10), held_by="zombie")
    assert state_of(ledger, drop.drop_id)[0] == "preparing"
    assert ledger.drops.move(drop.drop_id, "preparing", "waiting", at(11), held_by="heir")


@pytest.mark.parametrize("state", ["refused", "poison", "closed"])
def test_a_replayed_drop_starts_anew(ledger: Ledger, state: str) -> None:
    drop = closed(ledger, "a")
    ledger.drops.claim(drop.drop_id, "me", at(1))
    ledger.drops.give_back(drop.drop_id, "me", "away", at(1))
    ledger.drops.move(drop.drop_id, "closed", state, at(1))
    ledger.drops.replay(drop.drop_id, at(2))
    assert state_of(ledger, drop.drop_id) == ("closed", 0, None)
    assert next_of(ledger, 2) == drop.drop_id


@pytest.mark.parametrize("state", ["preparing", "waiting", "training", "trained"])
def test_what_is_prepared_or_under_way_is_not_replayed(ledger: Ledger, state: str) -> None:
    drop = closed(ledger, "a")
    ledger.drops.move(drop.drop_id, "closed", state, at(1))
    with pytest.raises(TidemillError, match=f"state {state}"):
        ledger.drops.replay(drop.drop_id, at(2))
    with pytest.raises(TidemillError, match="no such drop"):
        ledger.drops.replay("d0", at(2))


def test_drops_are_found_by_state(ledger: Ledger) -> None:
    first, second = closed(ledger, "a"), closed(ledger, "b")
    ledger.drops.move(first.drop_id, "closed", "trained", at(1))
    assert [state.drop_id for state in ledger.drops.states(MODEL, only=["closed", "waiting"])] == [second.drop_id]


def waiting(ledger: Ledger, *names: str) -> list[str]:
    """Ids of prepared drops."""
    ids = [closed(ledger, name).drop_id for name in names]
    for drop_id in ids:
        assert ledger.drops.move(drop_id, "closed", "waiting", at(1))
    return ids


def states(ledger: Ledger) -> list[str]:
    return [found.state for found in ledger.drops.states(MODEL)]


def test_a_training_takes_all_of_its_drops_or_none(ledger: Ledger) -> None:
    ids = waiting(ledger, "a", "b")
    assert not ledger.drops.start_training(MODEL, [*ids, "d0"], "me", at(2))
    assert states(ledger) == ["waiting", "waiting"]
    assert ledger.drops.start_training(MODEL, ids, "me", at(2))
    assert states(ledger) == ["training", "training"]
    assert ledger.drops.end_training(ids, "me", "trained", "v1", at(3))
    assert states(ledger) == ["trained", "trained"]


def test_a_model_has_one_training_at_a_time(ledger: Ledger, other: Ledger) -> None:
    first, second = waiting(ledger, "a"), waiting(ledger, "b")
    won = concurrently(
        [
            partial(book.drops.start_training, MODEL, ids, owner, at(2))
            for book, ids, owner in ((ledger, first, "me"), (other, second, "you"))
        ]
    )
    assert sorted(won) == [False, True]


def test_only_its_owner_ends_a_training(ledger: Ledger) -> None:
    ids = waiting(ledger, "a", "b")
    ledger.drops.start_training(MODEL, ids, "zombie", at(2))
    ledger.drops.release("zombie", at(3))
    ledger.drops.start_training(MODEL, ids, "heir", at(4))
    assert not ledger.drops.end_training(ids, "zombie", "waiting", "failed", at(5))
    assert states(ledger) == ["training", "training"]


def test_a_process_that_stops_in_order_uses_up_no_attempt(ledger: Ledger) -> None:
    drop = closed(ledger, "a")
    ledger.drops.claim(drop.drop_id, "me", at(1))
    assert ledger.drops.release("me", at(2), reason=None) == [drop.drop_id]
    assert state_of(ledger, drop.drop_id) == ("closed", 0, None)
    assert next_of(ledger, 2) == drop.drop_id


def test_a_drop_is_claimed_only_in_the_states_that_are_meant(ledger: Ledger) -> None:
    drop = closed(ledger, "a")
    ledger.drops.move(drop.drop_id, "closed", "refused", at(1))
    assert ledger.drops.claim(drop.drop_id, "watcher", at(2), only=("closed",)) is None
    assert ledger.drops.claim(drop.drop_id, "operator", at(2)) == drop


def test_the_sizes_of_very_many_drops_are_asked_for_at_once(ledger: Ledger) -> None:
    drop = closed(ledger, "a")
    sizes = ledger.drops.sizes([drop.drop_id, *(f"d{n}" for n in range(40_000))])
    assert sizes[drop.drop_id] == 1
    assert len(sizes) == 40_001
