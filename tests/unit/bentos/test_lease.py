"""One process acts at a time: taking over from the dead, never from the living."""

from __future__ import annotations

from functools import partial

from bentos.lease import NAME, STANDSTILL_S, Holding
from lake.ledger import Ledger
from lake.process_owner import process_owner
from tests.concurrently import concurrently

ELSEWHERE = "other-host:0000:1:2"  # whether it lives cannot be told from here


def holding(ledger: Ledger, holder: str = ELSEWHERE) -> Holding:
    return Holding(ledger.leases, holder)


def test_the_first_to_look_holds_it_and_goes_on_holding_it(ledger: Ledger) -> None:
    first, second = holding(ledger, "a:0:1:2"), holding(ledger, "b:0:1:2")
    assert first.look(0)
    assert not second.look(0)
    for now_s in range(1, 100):
        assert first.look(now_s)
        assert not second.look(now_s)


def test_of_many_at_once_one_holds_it(ledger: Ledger) -> None:
    several = [holding(ledger, f"host-{n}:0:1:2") for n in range(4)]
    assert sum(concurrently([partial(each.look, 0) for each in several])) == 1


def test_a_holder_without_a_sign_of_life_loses_it_after_a_while(ledger: Ledger) -> None:
    first, second = holding(ledger, "a:0:1:2"), holding(ledger, "b:0:1:2")
    assert first.look(0)
    assert not second.look(0)
    assert not second.look(STANDSTILL_S - 1)
    assert first.look(STANDSTILL_S - 1)
    assert not second.look(STANDSTILL_S)  # it has moved
    assert second.look(2 * STANDSTILL_S)
    assert second.held is not None
    assert not first.look(2 * STANDSTILL_S)
    assert first.held is None
    assert second.held.token == 2


def test_a_holder_that_has_ended_here_is_not_waited_for(ledger: Ledger) -> None:
    host, boot, pid, _ = process_owner().rsplit(":", 3)
    dead = f"{host}:{boot}:{pid}:1"  # a process of another time under this one's number
    assert holding(ledger, dead).look(0)
    assert holding(ledger, process_owner()).look(0)


def test_what_is_released_can_be_taken_at_once(ledger: Ledger) -> None:
    first, second = holding(ledger, "a:0:1:2"), holding(ledger, "b:0:1:2")
    first.look(0)
    first.release()
    assert second.look(0)
    first.release()  # has nothing to release any more
    found = ledger.leases.get(NAME)
    assert found is not None
    assert found.holder == "b:0:1:2"
