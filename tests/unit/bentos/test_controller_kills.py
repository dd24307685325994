"""The controller killed at every place where it acts: its next life continues, and the champion is never without route.

The ledger is real. Supervisor and gateway are replaced by a plant that does what it is told and checks each order, so
that hundreds of kills take seconds; the integration tests have the real ones, and one kill.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from bentos import controller as controlling
from bentos.controller import Controller
from bentos.counters import Counters, Snapshot, VersionCounters
from bentos.orders import begin_rollout
from bentos.routing import Routing
from bentos.targets.target import Key, Sighting
from lake.ledger import Ledger
from lake.ledger.rollout_state import Replica, RolloutState
from lake.recipe import Rollout, RolloutCheck, RolloutStep
from lake.settings import Settings

MODEL = "docs"
PLAN = Rollout(
    steps=(
        RolloutStep(stage="shadow", share=1.0, min_requests=5),
        RolloutStep(stage="canary", share=0.5, min_requests=5),
    ),
    checks=(RolloutCheck(metric="error_rate"),),
    cool_down_s=0,
    retain_champion_s=0,
)
KILL_SHARE = 0.2
N_SEEDS = 8


class KilledError(BaseException):
    """SIGKILL: no handler of the controller sees it."""


class Plant:
    """Processes, routes and counters, as supervisor and gateway would have them."""

    def __init__(self, seed: int, ledger: Ledger, broken: str | None) -> None:
        self.draw = random.Random(seed)
        self.ledger, self.broken = ledger, broken
        self.kills = 0
        self.pids: dict[tuple[str, str], int] = {}
        self.routing = Routing()
        self.version = ""
        self.counted: Counter[tuple[str, str]] = Counter()

    def deadly(self, act: Callable[..., Any]) -> Callable[..., Any]:
        """The same act, before or after which the controller may be killed."""

        def acting(*args: Any, **named: Any) -> Any:
            self.maybe_kill()
            done = act(*args, **named)
            self.maybe_kill()
            return done

        return acting

    def maybe_kill(self) -> None:
        if self.draw.random() < KILL_SHARE:
            self.kills += 1
            raise KilledError

    def reconcile(self, wanted: Sequence[Replica], routed: Collection[tuple[str, str]] | None) -> dict[Key, Sighting]:
        keys = {(replica.model, replica.version) for replica in wanted}
        serving = {(endpoint.model, endpoint.version) for endpoint in self.routing.endpoints}
        for key in [] if routed is None else list(self.pids.keys() - keys - set(routed)):
            assert key not in serving, f"{key} was ended while the gateway still sends to it"
            del self.pids[key]
        current: dict[Key, Sighting] = {key: Sighting(str(self.pids[key]), "ready") for key in keys if key in self.pids}
        for key in keys - self.pids.keys():
            self.pids[key] = self.draw.randrange(1_000_000)
        return current

    def apply(self, routing: Routing, token: int) -> str:
        for endpoint in routing.endpoints:
            assert (endpoint.model, endpoint.version) in self.pids, f"{endpoint} is routed to and does not run"
        self.routing, self.version = routing, str(self.draw.random())
        return self.version

    def applied_version(self) -> str:
        return self.version

    def observe(self) -> Snapshot:
        versions = tuple(
            VersionCounters(model=MODEL, version=version, counters=self.counters(version)) for version in ("v1", "v2")
        )
        return Snapshot(taken_at=datetime.now(UTC), uptime_s=1_000, versions=versions)

    def counters(self, version: str) -> Counters:
        n_errors, n_answered = self.counted[version, "error"], self.counted[version, "answer"]
        n = n_errors + n_answered
        return Counters(n_answered=n_answered, n_errors=n_errors, n_assigned=n, n_latencies=n, latency_sum_ms=50.0 * n)

    def last_words(self, model: str, version: str) -> str | None:
        return f"{model} {version} says nothing"

    def traffic(self) -> None:
        """A second of it. Whoever has a champion is answered by a process that runs."""
        champion = self.ledger.versions.champion(MODEL)
        for route in self.routing.routes:
            asked = [route.champion] * 10 + ([route.challenger] * 10 if route.challenger and route.share else [])
            for version in asked:
                assert (MODEL, version) in self.pids
                self.counted[version, "error" if version == self.broken else "answer"] += 1
        assert champion is None or self.routing.routes or champion.version == "v1"  # crowned, and routed in a moment


def live_until_done(plant: Plant, ledger: Ledger, rollout: RolloutState) -> None:
    """Ticks of as many lives as it takes, until the rollout has ended and nothing is left to be tidied up."""
    life = Controller(ledger, plant)
    for _ in range(200):
        try:
            life.tick()
        except KilledError:
            life = Controller(ledger, plant)
        plant.traffic()
        ended = ledger.rollouts.get(rollout.rollout_id)
        assert ended is not None
        champion = ledger.versions.champion(MODEL)
        if ended.state != "running" and plant.pids.keys() == {(MODEL, champion.version)} if champion else False:
            return
    raise AssertionError(f"{rollout.rollout_id} and its replicas did not come to rest")


@pytest.mark.parametrize("broken", [None, "v2"])
def test_a_rollout_survives_being_killed_anywhere(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, broken: str | None
) -> None:
    ledger.engine.dispose()  # its file is copied for each seed
    monkeypatch.setattr(controlling, "DRAIN_MIN_S", -1.0)
    n_kills = 0
    for seed in range(N_SEEDS):
        copy = shutil.copy(settings.home / "ledger.db", settings.home / f"ledger-{seed}.db")
        here = settings.model_copy(update={"database_url": f"sqlite:///{copy}"})
        fresh = Ledger(here)
        plant = Plant(seed, fresh, broken)
        for act in ("apply", "applied_version", "observe", "reconcile"):
            monkeypatch.setattr(plant, act, plant.deadly(getattr(plant, act)))
        for version in ("v1", "v2"):
            fresh.versions.allocate(model=MODEL, training_key=version, reason="drop", dataset_ids=("d",), parent=None)
        first = begin(here, fresh, "v1")
        for act in ("enter_step", "finish", "weigh", "drop_replica"):
            monkeypatch.setattr(fresh.rollouts, act, plant.deadly(getattr(fresh.rollouts, act)))
        live_until_done(plant, fresh, first)
        second = begin(here, fresh, "v2")
        live_until_done(plant, fresh, second)
        told = [each for each in fresh.rollouts.decisions(second.rollout_id) if each.action != "hold"]
        expected = ["start", "promote", "promote"] if broken is None else ["start", "roll_back"]
        assert [each.action for each in told] == expected, f"seed {seed}"
        states = {each.version: each.state for each in fresh.versions.all(MODEL)}
        assert states == (
            {"v1": "retired", "v2": "champion"} if broken is None else {"v1": "champion", "v2": "rolled_back"}
        ), f"seed {seed}"
        n_kills += plant.kills
        fresh.engine.dispose()
    assert n_kills >= 50


def begin(settings: Settings, ledger: Ledger, version: str) -> RolloutState:
    return begin_rollout(settings, ledger, model=MODEL, version=version, tag=f"{MODEL}:{version}", plan=PLAN)
