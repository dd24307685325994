"""What must not hurt clients: a controller that sleeps, two of them, refused routes, full disks, a split that is not one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bentos import gateway
from bentos.controller import open_target
from bentos.lease import NAME
from bentos.moves import evidence_of
from bentos.orders import request_rollback, undo
from bentos.routing import Routing, routing_of
from bentos.targets.target import LeaseLost
from bentos.watchdog import SUBJECT, Watchdog
from lake.ledger import Ledger
from lake.recipe import RolloutStep
from lake.settings import load_settings
from tests.chaos.disks import SmallDisk
from tests.integration.test_rollout import AT_ONCE, ENDLESS, PLAN, World, _end_all
from tests.ports import free_port_block, free_ports
from tests.servers import envoy, wait_until

pytestmark = pytest.mark.integration

RETAINED = AT_ONCE.model_copy(update={"retain_champion_s": 600.0})


def _installed(folder: Path, stack: ExitStack) -> World:
    public, admin = free_ports(2)
    settings = load_settings(
        home=folder / "home", gateway_port=public, gateway_admin_port=admin, replica_port_first=free_port_block(40)
    )
    made = World(settings, Ledger(settings), folder, stack)
    made.ledger.migrate()
    stack.enter_context(envoy(settings))
    stack.callback(_end_all, settings)
    made.start_arbiter()
    made.start_controller()
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield _installed(tmp_path_factory.mktemp("safety"), stack)


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, SmallDisk, SmallDisk]]:
    """An installation whose home is a small disk, and the gateway's folder another one in it."""
    folder = tmp_path_factory.mktemp("full")
    with ExitStack() as stack:
        home = SmallDisk(folder / "home", size_mb=64)
        stack.callback(home.close)
        routes = SmallDisk(folder / "home" / "gateway", size_mb=1)
        stack.callback(routes.close)
        if home.refused or routes.refused:
            pytest.skip(f"no disk of its own: {home.refused or routes.refused}")
        yield _installed(folder, stack), home, routes


def test_a_controller_that_sleeps_loses_the_challengers_traffic_and_wakes_harmless(world: World) -> None:
    world.first("sleep")
    with world.traffic("sleep") as outcomes:
        rollout = world.offer("sleep", ENDLESS)
        wait_until("both versions answer", lambda: outcomes["v1"] > 20 and outcomes["v2"] > 20)
        before = _token(world)
        watchdog = Watchdog(world.ledger, lambda: open_target(world.settings), standstill_s=1.0)
        os.kill(world.controller.pid, signal.SIGSTOP)
        try:
            wait_until("the watchdog acts", lambda: _paced(lambda: watchdog.tick(time.monotonic())))
            assert [alarm.subject for alarm in world.ledger.alarms.open()] == [SUBJECT]
            answered = Counter(outcomes)
            wait_until("the champion answers", lambda: outcomes["v1"] > answered["v1"] + 50)
            # A request that was on its way; none that was asked since.
            assert outcomes["v2"] <= answered["v2"] + 2
            assert world.state(rollout).state == "running"
            assert not watchdog.tick(time.monotonic())  # once is enough
        finally:
            os.kill(world.controller.pid, signal.SIGCONT)
        answered = Counter(outcomes)
        wait_until("the controller goes on", lambda: outcomes["v2"] > answered["v2"] + 20)
        wait_until("the alarm is over", lambda: not world.ledger.alarms.open())
    assert set(outcomes) == {"v1", "v2"}, outcomes
    assert _token(world) == before + 2  # the watchdog's and its own, taken anew
    assert world.actions(rollout) == [("start", "pending", "canary")]
    log = (world.folder / "tests.stand_in_controller.log").read_text()
    assert log.count(f"lease {before + 2}") == 1
    _give_up(world, "sleep")


def test_an_older_lease_changes_nothing(world: World) -> None:
    world.first("fence")
    rules = (gateway.dynamic_folder(world.settings) / "rds.json").read_bytes()
    with pytest.raises(LeaseLost, match="routes of lease"):
        gateway.apply(world.settings, Routing(), _token(world) - 1)
    assert (gateway.dynamic_folder(world.settings) / "rds.json").read_bytes() == rules
    assert world.answer("fence") == "v1"


def test_of_two_controllers_one_acts_and_the_other_follows_its_death(world: World) -> None:
    world.first("two")
    first, holder = world.controller, world.ledger.leases.get(NAME)
    assert holder is not None
    world.start_controller()  # the second
    with world.traffic("two") as outcomes:
        rollout = world.offer("two")
        wait_until("the first step", lambda: world.state(rollout).step_index >= 0)
        held = world.ledger.leases.get(NAME)
        assert held is not None
        assert (held.holder, held.token) == (holder.holder, holder.token)
        first.kill()
        first.wait()
        wait_until("v2 is promoted", lambda: world.state(rollout).state == "promoted", 60)
        wait_until("v1's replica is gone", lambda: world.pid("two", "v1") is None)  # nothing is left to be done
    assert _token(world) == holder.token + 1
    assert set(outcomes) == {"v1", "v2"}, outcomes
    assert world.actions(rollout) == [
        ("start", "pending", "shadow"),
        ("promote", "shadow", "ab"),
        ("promote", "ab", "canary"),
        ("promote", "canary", "full"),
    ]


def _no_time_to_connect(render: Callable[..., Any]) -> Callable[..., Any]:
    return lambda routing: [{**cluster, "connect_timeout": "0s"} for cluster in render(routing)]


def _weights_of_nothing(render: Callable[..., Any]) -> Callable[..., Any]:
    def broken(*arguments: Any, **named: Any) -> dict[str, Any]:
        rules = render(*arguments, **named)
        weights = {"weighted_clusters": {"clusters": [{"name": "refused/v1", "weight": 0}]}}
        rules["virtual_hosts"][0]["routes"].insert(0, {"match": {"prefix": "/v1/"}, "route": weights})
        return dict(rules)

    return broken


@pytest.mark.parametrize(
    ("renderer", "breaks"), [("render_clusters", _no_time_to_connect), ("render_routes", _weights_of_nothing)]
)
def test_what_envoy_refuses_leaves_files_and_routes_as_they_were(
    world: World, monkeypatch: pytest.MonkeyPatch, renderer: str, breaks: Callable[[Callable[..., Any]], Any]
) -> None:
    world.first("refused")
    with _still(world):  # the controller would write the files anew if Envoy once answered late
        _refused(world, monkeypatch, renderer, breaks)
    assert world.answer("refused") == "v1"


def _refused(world: World, monkeypatch: pytest.MonkeyPatch, renderer: str, breaks: Callable[..., Any]) -> None:
    settings, files = world.settings, ("cds.json", "rds.json")
    dynamic = gateway.dynamic_folder(settings)
    before = [(dynamic / name).read_bytes() for name in files]
    version = gateway.applied_version(settings)
    wanted = world.ledger.rollouts.wanted_replicas()
    champions = {found.model: found.version for found in world.ledger.versions.all() if found.state == "champion"}
    with world.traffic("refused") as outcomes:
        monkeypatch.setattr(gateway, renderer, breaks(getattr(gateway, renderer)))
        with pytest.raises(gateway.GatewayError, match="goes on serving"):
            gateway.apply(settings, routing_of(wanted, champions, ()), _token(world), timeout_s=3)
        answered = outcomes["v1"]
        wait_until("clients are answered", lambda: outcomes["v1"] > answered + 50)
    assert set(outcomes) == {"v1"}, outcomes
    assert [(dynamic / name).read_bytes() for name in files] == before
    assert gateway.applied_version(settings) == version


@contextmanager
def _still(world: World) -> Iterator[None]:
    os.kill(world.controller.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(world.controller.pid, signal.SIGCONT)


def test_a_split_that_is_not_as_planned_ends_in_no_verdict(world: World) -> None:
    world.first("split")
    step = RolloutStep(stage="canary", share=0.5, min_requests=100, max_duration_s=3600)
    with world.traffic("split"):
        rollout = world.offer("split", PLAN.model_copy(update={"steps": (step,)}))
        wait_until("it is counted", lambda: evidence_of(world.state(rollout)).snapshot is not None)
        _split_by_hand(world, share=0.2)
        subject = f"rollout {rollout.rollout_id} waits"
        wait_until("there is an alarm", lambda: subject in _alarms(world))
        wait_until(
            "it has seen enough", lambda: evidence_of(world.state(rollout)).challenger.n_requests > 150, timeout_s=60
        )
        last = world.ledger.rollouts.decisions(rollout.rollout_id)[-1]
        assert world.state(rollout).state == "running"
        assert last.action == "hold"
        assert "not split as planned" in last.reason
    _give_up(world, "split")


def test_undo_is_instant_while_the_champions_replica_is_kept(world: World) -> None:
    world.first("undo")
    kept = world.pid("undo", "v1")
    with world.traffic("undo") as outcomes:
        rollout = world.offer("undo", RETAINED)
        wait_until("v2 answers", lambda: outcomes["v2"] > 20)
        undo(world.ledger, "undo", "it is rude")
        wait_until("v2's replica is gone", lambda: world.pid("undo", "v2") is None)
    assert set(outcomes) == {"v1", "v2"}, outcomes
    assert world.pid("undo", "v1") == kept
    assert (world.version_state("undo", "v1"), world.version_state("undo", "v2")) == ("champion", "rolled_back")
    assert world.state(rollout).state == "undone"
    assert world.ledger.rollouts.decisions(rollout.rollout_id)[-1].reason == "it is rude"


def test_undo_starts_a_champion_that_was_not_kept(world: World) -> None:
    world.first("anew")
    with world.traffic("anew") as outcomes:
        world.offer("anew", AT_ONCE)
        wait_until("v1's replica is gone", lambda: outcomes["v2"] > 20 and world.pid("anew", "v1") is None)
        undo(world.ledger, "anew", "it is rude")
        wait_until("v2's replica is gone", lambda: world.pid("anew", "v2") is None)
        wait_until("v1 answers", lambda: outcomes["anew:v1"] > 20)  # by the tag that packaging gives it
    assert set(outcomes) == {"v1", "v2", "anew:v1"}, outcomes
    assert world.version_state("anew", "v1") == "champion"


@pytest.mark.parametrize("full", ["gateway", "home"])
def test_a_full_disk_at_a_transition_holds_and_the_champion_serves_on(
    disks: tuple[World, SmallDisk, SmallDisk], full: str
) -> None:
    world, home, routes = disks
    disk = {"gateway": routes, "home": home}[full]
    world.first(full)
    with world.traffic(full) as outcomes:
        rollout = world.offer(full, AT_ONCE)
        wait_until("its replica starts", lambda: world.pid(full, "v2") is not None)
        disk.fill()
        try:
            answered = outcomes.total()
            time.sleep(4)  # some ticks of the controller
            wait_until("clients are answered", lambda: outcomes.total() > answered + 50)
            if full == "gateway":
                wait_until("there is an alarm", lambda: "gateway" in _alarms(world))
                assert outcomes["v2"] == 0
        finally:
            disk.empty()
        wait_until("v2 is promoted", lambda: world.state(rollout).state == "promoted")
        wait_until("v2 answers", lambda: outcomes["v2"] > 20)
        wait_until("no alarm is left", lambda: not _alarms(world))
        wait_until("v1's replica is gone", lambda: world.pid(full, "v1") is None)
    assert set(outcomes) == {"v1", "v2"}, outcomes
    assert world.controller.poll() is None


def _token(world: World) -> int:
    found = world.ledger.leases.get(NAME)
    assert found is not None
    return found.token


def _alarms(world: World) -> list[str]:
    return [alarm.subject for alarm in world.ledger.alarms.open()]


def _paced(holds: Callable[[], bool]) -> bool:
    time.sleep(0.3)
    return holds()


def _give_up(world: World, model: str) -> None:
    request_rollback(world.ledger, model, "seen enough")
    wait_until("its replica is gone", lambda: world.pid(model, "v2") is None)


def _split_by_hand(world: World, share: float) -> None:
    """Other weights under the same version, as a hand in the file would leave them: the controller does not see it."""
    path = gateway.dynamic_folder(world.settings) / "rds.json"
    rules = json.loads(path.read_text())
    for found in rules["resources"][0]["virtual_hosts"][0]["routes"]:
        pairs = found.get("route", {}).get("weighted_clusters", {}).get("clusters", ())
        for pair in pairs:
            first = "v2" if pair["name"].startswith("split/v2") else "v1"
            pair["weight"] = round(10_000 * (share if first == "v2" else 1 - share))
    gateway._write(path, rules)
