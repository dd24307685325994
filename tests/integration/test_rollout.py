"""Rollouts from beginning to end: the real controller, the real supervisor, a real Envoy, small servers as replicas."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from bentos.moves import evidence_of
from bentos.orders import begin_rollout, request_rollback
from bentos.replicas import IDENTITY
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.rollout_state import RolloutState
from lake.recipe import Rollout, RolloutStep
from lake.settings import Settings, load_settings
from tests.ports import free_port_block, free_ports
from tests.rollouts import LOOSE_CHECKS
from tests.servers import envoy, process, wait_until

pytestmark = pytest.mark.integration

PLAN = Rollout(
    steps=(
        RolloutStep(stage="shadow", share=1.0, min_requests=10, max_duration_s=60),
        RolloutStep(stage="ab", share=0.5, min_requests=10, max_duration_s=60),
        RolloutStep(stage="canary", share=0.75, min_requests=10, max_duration_s=60),
    ),
    checks=LOOSE_CHECKS,
    cool_down_s=0,
    retain_champion_s=0,
)
# Never decides by itself: for what happens in the middle of a step.
ENDLESS = PLAN.model_copy(
    update={"steps": (RolloutStep(stage="canary", share=0.5, min_requests=1_000_000, max_duration_s=3600),)}
)
AT_ONCE = PLAN.model_copy(update={"steps": ()})


@dataclass
class World:
    """An installation without object storage and flows: ledger, gateway, supervisor, controller."""

    settings: Settings
    ledger: Ledger
    folder: Path
    stack: ExitStack
    arbiter: subprocess.Popen[bytes] = field(init=False)
    controller: subprocess.Popen[bytes] = field(init=False)

    def start_arbiter(self) -> None:
        self.arbiter = self._start("tests.arbiter")

    def start_controller(self) -> None:
        self.controller = self._start("tests.stand_in_controller")

    def _start(self, module: str) -> subprocess.Popen[bytes]:
        log = self.folder / f"{module}.log"
        command = [sys.executable, "-m", module]
        return self.stack.enter_context(process(command, log, self.settings.environment()))

    def offer(self, model: str, plan: Rollout = PLAN, *, tag: str = "") -> RolloutState:
        """Enter a new version of the model and offer it, under a tag other than its name if one is given."""
        known = self.ledger.versions.all(model)
        made = self.ledger.versions.allocate(
            model=model, training_key=f"{model}-{len(known)}", reason="drop", dataset_ids=("d",), parent=None
        )
        return self.offer_again(model, made.version, plan, tag=tag)

    def offer_again(
        self, model: str, version: str, plan: Rollout, *, tag: str = "", error_rate: float = 0.0
    ) -> RolloutState:
        return begin_rollout(
            self.settings,
            self.ledger,
            model=model,
            version=version,
            tag=tag or version,
            plan=plan,
            inject_error_rate=error_rate,
        )

    def first(self, model: str) -> None:
        """Bring a model's v1 to full, unless it is."""
        if self.ledger.versions.champion(model) is None:
            self.offer(model)
        wait_until(f"{model} v1 serves", lambda: self.answer(model) == "v1")

    def answer(self, model: str) -> str:
        """The version that answers, or what went wrong."""
        return _ask(self.settings, httpx.Client(timeout=20), model, "someone")

    def state(self, rollout: RolloutState) -> RolloutState:
        found = self.ledger.rollouts.get(rollout.rollout_id)
        assert found is not None
        return found

    def version_state(self, model: str, version: str) -> str:
        found = self.ledger.versions.get(model, version)
        assert found is not None
        return found.state

    def actions(self, rollout: RolloutState) -> list[tuple[str, str, str]]:
        """Decisions but holds, in order: action, from, to."""
        told = self.ledger.rollouts.decisions(rollout.rollout_id)
        return [(each.action, each.from_stage, each.to_stage) for each in told if each.action != "hold"]

    def pids(self, model: str, version: str) -> list[int]:
        """The replica's processes."""
        found = []
        for each in psutil.process_iter():
            try:
                environment = each.environ()
            except psutil.Error:
                continue
            here = environment.get("TIDEMILL_HOME") == str(self.settings.home)
            if here and environment.get(IDENTITY) == f"{model}/{version}":
                found.append(each.pid)
        return found

    def pid(self, model: str, version: str) -> int | None:
        return next(iter(self.pids(model, version)), None)

    @contextmanager
    def traffic(self, model: str) -> Iterator[Counter[str]]:
        """Two clients that ask without a pause. The counter holds versions, and failures in words."""
        outcomes: Counter[str] = Counter()
        stopping = threading.Event()

        def ask(client_number: int) -> None:
            with httpx.Client(timeout=20) as client:
                turn = 0
                while not stopping.is_set():
                    outcomes[_ask(self.settings, client, model, f"{client_number}-{turn}")] += 1
                    turn += 1
                    time.sleep(0.01)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield outcomes
        finally:
            stopping.set()
            for thread in threads:
                thread.join()


def counts(state: RolloutState) -> bool:
    """Whether the routes of its step are confirmed, and its requests counted."""
    return evidence_of(state).snapshot is not None


def request(settings: Settings, body: dict[str, object]) -> dict[str, Any]:
    """A chat completion's arguments for httpx."""
    return {
        "url": f"{settings.gateway_url}/v1/chat/completions",
        "json": body,
        "headers": {"authorization": f"Bearer {settings.gateway_api_key}"},
    }


def _ask(settings: Settings, client: httpx.Client, model: str, user: str) -> str:
    try:
        answer = client.post(**request(settings, {"model": model, "user": user}))
    except httpx.HTTPError as error:
        return f"failed: {error!r}"
    return str(answer.json()["tag"]) if answer.is_success else f"failed: {answer.status_code} {answer.text}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("rollout")
    public, admin = free_ports(2)
    settings = load_settings(
        home=folder / "home",
        gateway_port=public,
        gateway_admin_port=admin,
        replica_port_first=free_port_block(40),
    )
    with ExitStack() as stack:
        made = World(settings, Ledger(settings), folder, stack)
        made.ledger.migrate()
        stack.enter_context(envoy(settings))
        stack.callback(_end_all, settings)  # a killed supervisor leaves what it has started
        made.start_arbiter()
        made.start_controller()
        yield made


def test_the_first_version_goes_straight_to_full(world: World) -> None:
    rollout = world.offer("first")
    wait_until("v1 serves", lambda: world.answer("first") == "v1")
    assert world.state(rollout).state == "promoted"
    assert world.actions(rollout) == [("promote", "pending", "full")]
    assert world.version_state("first", "v1") == "champion"


def test_a_challenger_walks_the_plan_under_traffic_though_the_controller_is_killed(world: World) -> None:
    world.first("walk")
    with world.traffic("walk") as outcomes:
        rollout = world.offer("walk")
        wait_until("the first step", lambda: world.state(rollout).step_index >= 0)
        os.kill(world.controller.pid, signal.SIGKILL)
        world.controller.wait()
        step, answered = world.state(rollout).step_index, outcomes.total()
        wait_until("clients are answered without it", lambda: outcomes.total() > answered + 20)
        assert world.state(rollout).step_index == step
        world.start_controller()
        wait_until("v2 is promoted", lambda: world.state(rollout).state == "promoted")
        wait_until("v1's replica is gone", lambda: world.pid("walk", "v1") is None)
        answered = outcomes["v2"]
        wait_until("v2 answers", lambda: outcomes["v2"] > answered + 20)
    assert set(outcomes) == {"v1", "v2"}, outcomes
    assert world.actions(rollout) == [
        ("start", "pending", "shadow"),
        ("promote", "shadow", "ab"),
        ("promote", "ab", "canary"),
        ("promote", "canary", "full"),
    ]
    for decision in world.ledger.rollouts.decisions(rollout.rollout_id):
        if decision.action == "promote":
            assert decision.challenger_stats.n_requests >= 10
            assert decision.challenger_stats.latency_mean_ms > 0
    assert (world.version_state("walk", "v1"), world.version_state("walk", "v2")) == ("retired", "champion")
    assert [replica.version for replica in world.ledger.rollouts.wanted_replicas() if replica.model == "walk"] == ["v2"]


def test_clients_do_not_queue_behind_the_copies_that_a_shadow_still_answers(world: World) -> None:
    world.first("copies")
    rollout = world.offer("copies", PLAN.model_copy(update={"steps": (PLAN.steps[0], ENDLESS.steps[0])}))
    wait_until("it is in the shadow", lambda: counts(world.state(rollout)))
    ports = {each.version: each.port for each in world.ledger.rollouts.wanted_replicas() if each.model == "copies"}
    with httpx.stream("POST", **request(world.settings, {"model": "copies", "stream": True}), timeout=20) as answer:
        lines = answer.iter_lines()
        assert "v1" in next(lines)  # its copy keeps v2 busy until it is released
        with world.traffic("copies") as outcomes:
            wait_until("it has left the shadow", lambda: world.state(rollout).step_index == 1)
            answered = outcomes["v1"]
            wait_until("clients are answered meanwhile", lambda: outcomes["v1"] > answered + 50)
            assert set(outcomes) == {"v1"}
            assert not counts(world.state(rollout))
            httpx.post(f"http://127.0.0.1:{ports['v2']}/release")
            wait_until("v2 answers clients", lambda: outcomes["v2"] > 20)
        httpx.post(f"http://127.0.0.1:{ports['v1']}/release")
        assert list(filter(None, lines)) == ["data: [DONE]"]
    request_rollback(world.ledger, "copies", "seen enough")


def test_a_failing_challenger_is_rolled_back_and_a_retired_version_is_retired_again(world: World) -> None:
    world.first("drill")
    with world.traffic("drill") as outcomes:
        at_once = world.offer("drill", AT_ONCE)
        wait_until("v2 is promoted", lambda: world.state(at_once).state == "promoted")
        # v1 may still be draining: it has to be started anew, with the faults, before it takes part.
        drill = world.offer_again("drill", "v1", PLAN, error_rate=0.6)
        wait_until("v1 is rolled back", lambda: world.state(drill).state == "rolled_back")
        wait_until("its replica is gone", lambda: world.pid("drill", "v1") is None)
    assert set(outcomes) == {"v1", "v2"}, outcomes  # it failed in the shadow, where no client sees it
    assert world.actions(drill) == [("start", "pending", "shadow"), ("roll_back", "shadow", "rolled_back")]
    last = world.ledger.rollouts.decisions(drill.rollout_id)[-1]
    assert last.challenger_stats.n_errors > 0
    assert last.champion_stats.n_errors == 0
    found = world.ledger.versions.get("drill", "v1")
    assert found is not None
    assert (found.state, found.message) == ("retired", last.reason)
    assert world.answer("drill") == "v2"


def test_the_death_of_a_challenger_rolls_it_back(world: World) -> None:
    world.first("first")
    with world.traffic("first") as outcomes:
        rollout = world.offer("first", ENDLESS)
        challenger = rollout.challenger
        wait_until("both versions answer", lambda: outcomes[challenger] > 20 and outcomes["v1"] > 20)
        _kill(world, "first", challenger)
        wait_until("it is rolled back", lambda: world.state(rollout).state == "rolled_back")
        wait_until("its replica is gone", lambda: world.pid("first", challenger) is None)
    # What the dying server was at is not executed twice: at most one request of each of the two clients.
    failures = sum(count for outcome, count in outcomes.items() if outcome.startswith("failed"))
    assert failures <= 2, outcomes
    assert world.version_state("first", challenger) == "rolled_back"
    assert world.answer("first") == "v1"


def test_a_challenger_that_cannot_start_is_rolled_back_with_its_last_words(world: World) -> None:
    world.first("first")
    rollout = world.offer("first", tag="broken")
    wait_until("it is rolled back", lambda: world.state(rollout).state == "rolled_back")
    reason = world.ledger.rollouts.decisions(rollout.rollout_id)[-1].reason
    assert "no bento broken in the store" in reason
    assert world.answer("first") == "v1"


def test_an_operator_rolls_back(world: World) -> None:
    world.first("first")
    with world.traffic("first") as outcomes:
        rollout = world.offer("first", ENDLESS)
        challenger = rollout.challenger
        wait_until("both versions answer", lambda: outcomes[challenger] > 20 and outcomes["v1"] > 20)
        request_rollback(world.ledger, "first", "it is rude")
        wait_until("its replica is gone", lambda: world.pid("first", challenger) is None)
    assert set(outcomes) == {"v1", challenger}, outcomes
    assert world.ledger.rollouts.decisions(rollout.rollout_id)[-1].reason == "it is rude"
    with pytest.raises(TidemillError, match="is rolled_back"):
        request_rollback(world.ledger, "first", "again")


def test_a_champion_that_dies_is_started_again_though_its_worker_holds_the_port(world: World) -> None:
    world.offer("worker", tag="parent-v1")
    wait_until("v1 serves", lambda: world.answer("worker") == "v1")
    family = world.pids("worker", "v1")
    parent = min(family, key=lambda pid: psutil.Process(pid).create_time())
    assert len(family) == 2
    os.kill(parent, signal.SIGKILL)
    wait_until("the worker it left is gone", lambda: not any(map(psutil.pid_exists, family)))
    wait_until("another family serves", lambda: len(world.pids("worker", "v1")) == 2)
    wait_until("it answers", lambda: world.answer("worker") == "v1")


def test_replicas_come_back_after_the_supervisor_was_killed(world: World) -> None:
    world.first("first")
    orphan = world.pid("first", "v1")
    assert orphan is not None
    os.kill(world.arbiter.pid, signal.SIGKILL)
    world.arbiter.wait()
    assert world.answer("first") == "v1"  # what it has started lives on
    world.start_arbiter()
    wait_until("the orphan is gone", lambda: not psutil.pid_exists(orphan))
    wait_until("another process serves", lambda: world.pid("first", "v1") not in (None, orphan))
    wait_until("it answers", lambda: world.answer("first") == "v1")


def _end_all(settings: Settings) -> None:
    for each in psutil.process_iter():
        try:
            if each.environ().get("TIDEMILL_HOME") == str(settings.home):
                each.kill()
        except psutil.Error:
            continue


def _kill(world: World, model: str, version: str) -> None:
    pid = world.pid(model, version)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
