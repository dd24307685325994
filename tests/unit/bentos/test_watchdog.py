"""When the controller stays dead, challengers lose the traffic; nothing else happens, and it happens once."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pytest

from bentos.counters import Snapshot
from bentos.lease import NAME, Holding
from bentos.orders import begin_rollout
from bentos.routing import Routing
from bentos.targets.target import Key, LeaseLost, Sighting
from bentos.watchdog import SUBJECT, Watchdog
from lake.ledger import Ledger
from lake.ledger.rollout_state import Replica
from lake.recipe import Rollout, RolloutStep
from lake.settings import Settings

CONTROLLER = "other-host:0000:1:2"
PLAN = Rollout(steps=(RolloutStep(stage="canary", share=0.5),))


@dataclass
class Gateway:
    """The only part of a target that a watchdog touches, with the fence that every target has."""

    newest: int = 0
    applied: list[Routing] = field(default_factory=list)

    def apply(self, routing: Routing, token: int) -> str:
        if token < self.newest:
            raise LeaseLost("gateway", expected="a newer lease", got=str(token), remedy="none")
        self.newest = token
        self.applied.append(routing)
        return "1"

    def reconcile(self, wanted: Sequence[Replica], routed: Collection[Key] | None) -> dict[Key, Sighting]:
        raise AssertionError("a watchdog starts and ends nothing")

    def applied_version(self) -> str | None:
        raise AssertionError("a watchdog asks nothing")

    def observe(self) -> Snapshot:
        raise AssertionError("a watchdog counts nothing")

    def last_words(self, model: str, version: str) -> str | None:
        raise AssertionError("a watchdog asks nobody")


@pytest.fixture
def rolling_out(settings: Settings, ledger: Ledger) -> Ledger:
    """v2 takes half of v1's traffic."""
    for version in ("v1", "v2"):
        ledger.versions.allocate(model="docs", training_key=version, reason="drop", dataset_ids=("d",), parent=None)
    ledger.versions.crown("docs", "v1")
    ledger.rollouts.want_replica(model="docs", version="v1", tag="docs:v1", environment={})
    rollout = begin_rollout(settings, ledger, model="docs", version="v2", tag="docs:v2", plan=PLAN)
    ledger.rollouts.enter_step(rollout.rollout_id, -1, 0, None)
    return ledger


def test_a_living_controller_is_left_alone(rolling_out: Ledger) -> None:
    gateway, controller = Gateway(), Holding(rolling_out.leases, CONTROLLER)
    watchdog = Watchdog(rolling_out, lambda: gateway, standstill_s=30)
    for now_s in range(0, 300, 2):
        controller.look(now_s)
        assert not watchdog.tick(now_s)
    assert gateway.applied == []


def test_a_controller_that_stays_dead_loses_its_challengers_traffic(rolling_out: Ledger) -> None:
    gateway, controller = Gateway(), Holding(rolling_out.leases, CONTROLLER)
    watchdog = Watchdog(rolling_out, lambda: gateway, standstill_s=30)
    controller.look(0)
    acted = [now_s for now_s in range(0, 120, 2) if watchdog.tick(now_s)]
    assert len(acted) == 1
    assert 30 <= acted[0] <= 40
    (routing,) = gateway.applied
    assert [(route.champion, route.challenger, route.stage) for route in routing.routes] == [("v1", None, "full")]
    # Both stay reachable: the challenger may be waiting for its next chance.
    assert [endpoint.version for endpoint in routing.endpoints] == ["v1", "v2"]
    (alarm,) = rolling_out.alarms.open()
    assert alarm.subject == SUBJECT
    assert "docs-v2-1" in alarm.message
    assert rolling_out.rollouts.running()[0].step_index == 0


def test_what_a_sleeping_controller_had_begun_is_refused_afterwards(rolling_out: Ledger) -> None:
    gateway, controller = Gateway(), Holding(rolling_out.leases, CONTROLLER)
    watchdog = Watchdog(rolling_out, lambda: gateway, standstill_s=30)
    controller.look(0)
    assert controller.held is not None
    before = controller.held.token
    assert any(watchdog.tick(now_s) for now_s in range(0, 60, 2))
    with pytest.raises(LeaseLost):
        gateway.apply(Routing(), before)
    found = rolling_out.leases.get(NAME)
    assert found is not None
    assert found.holder is None  # free for the controller that comes back
    assert controller.look(61)
    gateway.apply(Routing(), controller.held.token)


def test_a_controller_that_comes_back_and_dies_again_is_noticed_again(rolling_out: Ledger) -> None:
    gateway, controller = Gateway(), Holding(rolling_out.leases, CONTROLLER)
    watchdog = Watchdog(rolling_out, lambda: gateway, standstill_s=30)
    controller.look(0)
    assert any(watchdog.tick(now_s) for now_s in range(0, 60, 2))
    for now_s in range(60, 90, 2):
        controller.look(now_s)
        watchdog.tick(now_s)
    assert any(watchdog.tick(now_s) for now_s in range(90, 150, 2))
    assert len(gateway.applied) == 2


def test_without_a_rollout_nobody_is_missed(ledger: Ledger) -> None:
    gateway = Gateway()
    watchdog = Watchdog(ledger, lambda: gateway, standstill_s=1)
    assert not any(watchdog.tick(now_s) for now_s in range(100))
    assert gateway.applied == []


def test_a_controller_that_dies_in_every_tick_counts_as_dead(rolling_out: Ledger) -> None:
    gateway = Gateway()
    watchdog = Watchdog(rolling_out, lambda: gateway, standstill_s=30)
    acted = False
    for now_s in range(0, 80, 2):
        Holding(rolling_out.leases, f"other-host:0000:{now_s}:2").look(now_s, 0.0)  # takes the lease, and that is all
        acted = watchdog.tick(now_s) or acted
    assert acted


def test_trouble_of_any_kind_does_not_end_it(rolling_out: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentos.watchdog.TICK_S", 0.01)
    stopping = threading.Event()
    n_looks = 0

    def fail(now_s: float) -> bool:
        nonlocal n_looks
        n_looks += 1
        if n_looks == 3:
            stopping.set()
        raise OSError("no space left on device")

    watchdog = Watchdog(rolling_out, Gateway)
    monkeypatch.setattr(watchdog, "tick", fail)
    watchdog.run(stopping)
    assert n_looks == 3
