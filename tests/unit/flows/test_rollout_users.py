"""How a sticky step's split is counted: users once, from the first request to the challenger on, when all have come."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from bentos.sequential.split import SplitTest
from flows import rollout_users
from flows.rollout_entries import Entries, Value
from flows.rollout_users import GRACE, SETTLE, SPLIT, SplitUsers
from lake.ledger import Ledger
from lake.ledger.rollout_state import RolloutState
from lake.records import PredictionLog
from tests.evidence import BEGAN, challenger, champion, entered, plan, running_rollout, shadow

FIRST = int(GRACE.total_seconds())  # the first second that counts
LATER = BEGAN + timedelta(hours=1)


@pytest.fixture
def rollout(ledger: Ledger) -> RolloutState:
    return running_rollout(ledger, plan(stage="ab"))


@pytest.fixture
def entries(ledger: Ledger, rollout: RolloutState) -> Entries:
    return Entries(ledger.rollout_observations, rollout.rollout_id)


@pytest.fixture
def users(entries: Entries) -> SplitUsers:
    return SplitUsers("v1", "v2", 0, BEGAN, entries)


def counted(ledger: Ledger, rollout: RolloutState) -> tuple[int, int]:
    seen = entered(ledger, rollout.rollout_id, SPLIT)
    assert all(value == 1.0 for entry in seen for value in (*entry.champion, *entry.challenger))
    return sum(len(entry.champion) for entry in seen), sum(len(entry.challenger) for entry in seen)


def test_users_count_once_and_requests_without_one_each(
    ledger: Ledger, rollout: RolloutState, users: SplitUsers
) -> None:
    rows = [
        challenger(FIRST, user="begins"),
        champion(FIRST + 1, user="ann"),
        champion(FIRST + 2, user="ann"),
        challenger(FIRST + 3, user="joe"),
        challenger(FIRST + 4),
        champion(FIRST + 5),
        champion(FIRST + 6),
    ]
    assert users.take(rows, True, LATER) == 5
    assert counted(ledger, rollout) == (3, 2)


def test_a_user_who_was_given_over_counts_where_the_first_request_went(
    ledger: Ledger, rollout: RolloutState, users: SplitUsers
) -> None:
    users.take([challenger(FIRST), challenger(FIRST + 1, user="ann"), champion(FIRST + 2, user="ann")], True, LATER)
    assert counted(ledger, rollout) == (0, 1)


def test_before_the_challenger_s_first_request_nothing_was_split(
    ledger: Ledger, rollout: RolloutState, users: SplitUsers
) -> None:
    before = [champion(FIRST + number, user=f"u{number}") for number in range(20)]
    users.take([*before, challenger(FIRST + 30, user="first"), champion(FIRST + 31, user="u1")], True, LATER)
    assert counted(ledger, rollout) == (1, 0)


def test_requests_that_no_split_gave_to_a_version_are_left_out(
    ledger: Ledger, rollout: RolloutState, users: SplitUsers
) -> None:
    rows = [
        challenger(FIRST, pinned=True),
        shadow(FIRST + 1),
        challenger(FIRST + 2),
        champion(FIRST + 3, pinned=True),
        champion(FIRST + 4, version="v0"),
        shadow(FIRST + 5),
        champion(FIRST + 6, status=500),  # a failure was split as any other
    ]
    users.take(rows, True, LATER)
    assert counted(ledger, rollout) == (1, 0)


def test_the_routes_of_the_step_before_are_given_time_to_go(
    ledger: Ledger, rollout: RolloutState, users: SplitUsers
) -> None:
    users.take([challenger(FIRST - 1), champion(FIRST - 1), challenger(FIRST), champion(FIRST + 1)], True, LATER)
    assert counted(ledger, rollout) == (1, 0)


def test_rows_wait_for_those_that_come_later(ledger: Ledger, rollout: RolloutState, users: SplitUsers) -> None:
    rows = [challenger(FIRST), *(champion(FIRST + number, latency_ms=0) for number in range(1, 40))]
    now = rows[0].at + SETTLE + timedelta(seconds=10.5)
    assert users.take(rows, True, now) == 10
    assert users.take([], True, now) == 0
    assert users.take([], True, now + timedelta(seconds=5)) == 5


def test_a_slow_version_is_waited_for(ledger: Ledger, rollout: RolloutState, users: SplitUsers) -> None:
    """What it has not answered yet would be missing on its side alone."""
    slow = challenger(FIRST, latency_ms=60_000)
    rows = [slow, *(champion(FIRST + number, latency_ms=0) for number in range(1, 40))]
    assert users.take(rows, True, slow.at + SETTLE + timedelta(seconds=60)) == 0
    assert users.take([], True, slow.at + SETTLE + timedelta(seconds=100)) == 39


def test_while_a_part_of_the_log_is_unread_nothing_is_counted(
    ledger: Ledger, rollout: RolloutState, users: SplitUsers
) -> None:
    assert users.take([champion(FIRST + 2), champion(FIRST + 3)], False, LATER) == 0
    assert users.take([challenger(FIRST), challenger(FIRST + 1)], True, LATER) == 3
    assert counted(ledger, rollout) == (2, 1)


class Counted:
    """Takes entries as the ledger does, and counts them."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.test = SplitTest(share=0.5)

    def add(
        self, metric: str, step_index: int, *, champion: list[Value], challenger: list[Value], once_a_step: bool
    ) -> int:
        ids = [value.id for value in (*champion, *challenger)]
        assert self.ids.isdisjoint(ids)
        self.ids.update(ids)
        self.test = self.test.updated(len(champion), len(challenger))
        return len(ids)


@pytest.mark.parametrize("seed", range(3))
def test_a_slower_challenger_is_no_broken_split(seed: int) -> None:
    """100 requests a second, split by a fair coin, answered in 1 s on average by one version and in 10 s by the other.

    Counted as they come, 12 of 12 such runs were taken for broken, with p below 1e-11.
    """
    draw, came, naive = random.Random(seed), [], SplitTest(share=0.5)
    for number in range(3_000):
        is_challenger = draw.random() < 0.5
        latency_s = draw.expovariate(1 / (10 if is_challenger else 1))
        asked_s = FIRST + number / 100
        row = (challenger if is_challenger else champion)(
            0, request_id=str(number), at=BEGAN + timedelta(seconds=asked_s), latency_ms=1000 * latency_s
        )
        came.append((asked_s + latency_s + 5 * draw.random(), row))
    counted, told = Counted(), 0
    users = SplitUsers("v1", "v2", 0, BEGAN, counted)  # type: ignore[arg-type]
    for now_s in range(0, 300, 5):
        rows = [row for at_s, row in came if now_s - 5 < at_s <= now_s]
        naive = naive.updated(*(sum(row.version == version for row in rows) for version in ("v1", "v2")))
        told += users.take(rows, True, BEGAN + timedelta(seconds=now_s))
    assert naive.p() < 1e-6
    assert counted.test.p() > 0.01
    assert told > 2_900


def traffic(n: int, share: float, seed: int) -> list[PredictionLog]:
    draw = random.Random(seed)
    side_of: dict[str, bool] = {}
    rows = []
    for number in range(n):
        user = f"u{draw.randrange(n)}" if draw.random() < 0.7 else ""
        to_challenger = side_of.setdefault(user or f"r{number}", draw.random() < share)
        rows.append((challenger if to_challenger else champion)(FIRST + number, user=user))
    return rows


@pytest.mark.parametrize("n_before", [1, 7, 50, 199])
def test_a_restart_counts_nobody_twice_and_nobody_less(
    ledger: Ledger, rollout: RolloutState, entries: Entries, n_before: int
) -> None:
    rows = traffic(200, 0.5, seed=n_before)
    SplitUsers("v1", "v2", 0, BEGAN, entries).take(rows[:n_before], True, LATER)
    again = Entries(ledger.rollout_observations, rollout.rollout_id)
    SplitUsers("v1", "v2", 0, BEGAN, again).take(rows, True, LATER)
    begin = next(place for place, row in enumerate(rows) if row.version == "v2")
    first_of: dict[str, str] = {}
    for row in rows[begin + 1 :]:
        first_of.setdefault(row.user or row.request_id, row.version)
    first_of.pop(rows[begin].user, None)
    versions = list(first_of.values())
    assert counted(ledger, rollout) == (versions.count("v1"), versions.count("v2"))


def test_after_so_many_no_more_are_counted(
    ledger: Ledger, rollout: RolloutState, users: SplitUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_users, "MAX_UNITS", 10)
    users.take([challenger(FIRST), *(champion(FIRST + number) for number in range(1, 40))], True, LATER)
    assert sum(counted(ledger, rollout)) == 9  # and the one that began the count
