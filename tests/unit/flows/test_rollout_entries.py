"""Values are entered once: by one process after another, by two at a time, and after an entry that nobody remembers."""

from __future__ import annotations

import pytest

from flows.rollout_entries import Entries, Value, hashed
from lake.ledger import Ledger
from lake.ledger.rollout_state import RolloutState
from tests.evidence import entered, plan, running_rollout

A, B, C = (Value(hashed(name), value) for name, value in (("a", 0.25), ("b", -0.5), ("c", 1.0)))


@pytest.fixture
def rollout(ledger: Ledger) -> RolloutState:
    return running_rollout(ledger, plan("agreement"))


@pytest.fixture
def entries(ledger: Ledger, rollout: RolloutState) -> Entries:
    return Entries(ledger.rollout_observations, rollout.rollout_id)


def test_values_are_entered_with_what_they_were_seen_on(
    ledger: Ledger, rollout: RolloutState, entries: Entries
) -> None:
    assert entries.add("agreement", 0, paired=[B, A]) == 2
    (seen,) = entered(ledger, rollout.rollout_id, "agreement")
    assert (seen.step_index, seen.paired, seen.ids) == (0, (-0.5, 0.25), (B.id, A.id))


def test_both_sides_are_entered_the_champion_s_first(ledger: Ledger, rollout: RolloutState, entries: Entries) -> None:
    assert entries.add("feedback", 0, champion=[A], challenger=[B, C]) == 3
    (seen,) = entered(ledger, rollout.rollout_id, "feedback")
    assert (seen.champion, seen.challenger, seen.ids) == ((0.25,), (-0.5, 1.0), (A.id, B.id, C.id))


def test_nothing_new_is_no_entry(ledger: Ledger, rollout: RolloutState, entries: Entries) -> None:
    assert entries.add("agreement", 0) == 0
    entries.add("agreement", 0, paired=[A, A])
    assert entries.add("agreement", 1, paired=[A]) == 0
    assert [seen.paired for seen in entered(ledger, rollout.rollout_id, "agreement")] == [(0.25,)]


def test_each_metric_has_its_own_values(entries: Entries) -> None:
    assert entries.add("agreement", 0, paired=[A]) == 1
    assert entries.add("repetition", 0, paired=[A]) == 1


def test_users_count_anew_in_each_step(entries: Entries) -> None:
    assert entries.add("split", 0, champion=[A], once_a_step=True) == 1
    assert entries.add("split", 0, challenger=[A], once_a_step=True) == 0
    assert entries.add("split", 1, challenger=[A], once_a_step=True) == 1


def test_the_next_process_goes_on_where_the_last_was_killed(
    ledger: Ledger, rollout: RolloutState, entries: Entries
) -> None:
    entries.add("agreement", 0, paired=[A])
    entries.add("agreement", 1, paired=[B])
    after = Entries(ledger.rollout_observations, rollout.rollout_id)
    assert after.add("agreement", 1, paired=[A, B, C]) == 1
    assert list(after.ids("agreement")) == [A.id, B.id, C.id]
    assert list(after.ids("agreement", 1)) == [B.id, C.id]


def test_an_entry_that_was_made_and_then_reported_as_failed_is_not_made_again(
    ledger: Ledger, rollout: RolloutState, entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = ledger.rollout_observations.add

    def cut_off(*arguments: object) -> int:
        add(*arguments)  # type: ignore[arg-type]
        raise ConnectionError("cut off before the answer came")

    with monkeypatch.context() as patched:
        patched.setattr(ledger.rollout_observations, "add", cut_off)
        with pytest.raises(ConnectionError):
            entries.add("agreement", 0, paired=[A])
    assert entries.add("agreement", 0, paired=[A]) == 0
    assert len(entered(ledger, rollout.rollout_id, "agreement")) == 1


def test_what_another_process_has_entered_meanwhile_is_known(
    ledger: Ledger, rollout: RolloutState, entries: Entries
) -> None:
    other = Entries(ledger.rollout_observations, rollout.rollout_id)
    other.add("agreement", 0, paired=[A])
    assert entries.add("agreement", 0, paired=[A, B]) == 1


def test_many_entries_are_known(ledger: Ledger, rollout: RolloutState, entries: Entries) -> None:
    """More than one page of the ledger's."""
    for number in range(1_050):
        entries.add("agreement", 0, paired=[Value(hashed(str(number)), 0.0)])
    after = Entries(ledger.rollout_observations, rollout.rollout_id)
    assert after.add("agreement", 0, paired=[Value(hashed(str(number)), 0.0) for number in range(1_051)]) == 1


def test_ids_name_nobody() -> None:
    assert hashed("request-1") != hashed("request-2")
    assert len(hashed("request-1")) == 12 and "request" not in hashed("request-1")
    assert hashed("half a pair \ud83d")
