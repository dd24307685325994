"""Points on the rollout controller: struck while it walks a challenger through its plan, under traffic."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil

from lake.ledger import Ledger
from lake.ledger.rollout_state import RolloutState
from lake.settings import load_settings
from tests.chaos.invariants import Violation
from tests.chaos.points import Outcome, Point
from tests.chaos.services import resume_later
from tests.integration.test_rollout import World, _end_all
from tests.ports import free_port_block, free_ports
from tests.servers import envoy, wait_until

MODEL = "offered"
EXPECTED = [
    ("start", "pending", "shadow"),
    ("promote", "shadow", "ab"),
    ("promote", "ab", "canary"),
    ("promote", "canary", "full"),
]
PROMOTED_WITHIN_S = 90.0
STRUCK_WITHIN_S = 8.0  # an undisturbed rollout takes about as long


class RolloutPoints:
    """The bench: real controller, supervisor and Envoy, small servers as replicas. Every point offers one version more."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> RolloutPoints:
        folder = Path(tempfile.mkdtemp(prefix="chaos-rollout-"))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        public, admin = free_ports(2)
        settings = load_settings(
            home=folder / "home",
            gateway_port=public,
            gateway_admin_port=admin,
            replica_port_first=free_port_block(40),
        )
        self._world = World(settings, Ledger(settings), folder, self._stack)
        self._world.ledger.migrate()
        self._stack.enter_context(envoy(settings))
        self._stack.callback(_end_all, settings)
        self._world.start_arbiter()
        self._world.start_controller()
        self._world.first(MODEL)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, point: Point) -> Outcome:
        outcome, started, world = Outcome(point), time.monotonic(), self._world
        champion = world.ledger.versions.champion(MODEL)
        assert champion is not None
        with world.traffic(MODEL) as answers:
            rollout = world.offer(MODEL)
            struck_at = self._strike(outcome, point.draw(), rollout)
            try:
                wait_until("promoted", lambda: world.state(rollout).state == "promoted", PROMOTED_WITHIN_S)
                wait_until("the old replica is gone", lambda: world.pid(MODEL, champion.version) is None, 60)
            except AssertionError as error:
                outcome.violations.append(Violation("stuck", str(error)))
            outcome.recovery_s = time.monotonic() - struck_at
        outcome.violations += self._verified(rollout, champion.version, answers)
        outcome.took_s = time.monotonic() - started
        return outcome

    def _strike(self, outcome: Outcome, draw: random.Random, rollout: RolloutState) -> float:
        wait_s = draw.uniform(0, STRUCK_WITHIN_S)
        time.sleep(wait_s)
        state, controller = self._world.state(rollout), self._world.controller
        outcome.fired = state.state == "running"
        outcome.where = f"{wait_s:.2f} s after the offer, in step {state.step_index}"
        if outcome.point.fault == "kill":
            controller.kill()
            controller.wait()
            self._world.start_controller()  # as the supervisor would
        else:
            psutil.Process(controller.pid).send_signal(signal.SIGSTOP)
            resume_later(controller.pid, draw.uniform(0.5, 4.0)).join()
        return time.monotonic()

    def _verified(self, rollout: RolloutState, before: str, answers: Counter[str]) -> Iterator[Violation]:
        """One champion, one way there, one replica, and no client has noticed."""
        world, challenger = self._world, rollout.challenger
        if set(answers) - {before, challenger}:
            yield Violation("lost", f"requests from {before} to {challenger}: {dict(answers)}")
        if world.actions(rollout) != EXPECTED:
            yield Violation("twice", f"decisions of {rollout.rollout_id}: {world.actions(rollout)}")
        champions = [found.version for found in world.ledger.versions.all(MODEL) if found.state == "champion"]
        if champions != [challenger]:
            yield Violation("twice", f"champions after {rollout.rollout_id}: {champions}")
        wanted = [replica.version for replica in world.ledger.rollouts.wanted_replicas() if replica.model == MODEL]
        if wanted != [challenger]:
            yield Violation("stuck", f"replicas after {rollout.rollout_id}: {wanted}")
