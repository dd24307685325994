"""The rollout controller: walks every rollout through its plan and keeps replicas and routes as the ledger wants them.

`python -m bentos.controller` is the process. The ledger alone holds the state: each tick reads it, does the next thing
and derives the replicas and routes from it again, so the process may be killed at any point and started again.
"""

from __future__ import annotations

import fcntl
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy.exc import OperationalError

from bentos import gateway
from bentos.envoy_stats import Snapshot, read_stats
from bentos.health import READY_TIMEOUT_S, Health, probe
from bentos.moves import Move, leaves_shadow, next_move, rolled_back
from bentos.replicas import Key, Replicas, last_log_line
from bentos.routing import ModelRoute, Routing, routing_of
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.engine import LedgerAway
from lake.ledger.rollouts import Replica, RolloutState, RolloutUnderWayError
from lake.recipe import Rollout as RolloutPlan
from lake.settings import Settings, load_settings

TICK_S = 1.0
# What is in flight when a version leaves the routes may end on it; a stream of tokens takes seconds.
DRAIN_TIMEOUT_S = 60.0
DRAIN_MIN_S = 2.0
POLL_S = 1.0
INJECT_VARIABLE = "TIDEMILL_INJECT_ERROR_RATE"

log = logging.getLogger("controller")


def begin_rollout(
    settings: Settings,
    ledger: Ledger,
    *,
    model: str,
    version: str,
    tag: str,
    plan: RolloutPlan,
    inject_error_rate: float = 0.0,
) -> RolloutState:
    """Offer a version to the model's traffic; the controller does the rest. Safe to repeat: it begins only once.

    While another challenger of the model is under way, this waits for its end, as long as its plan may take at most.
    Raises TidemillError when that did not suffice, or when the version already serves or is not in the ledger.
    """
    environment = {INJECT_VARIABLE: str(inject_error_rate)} if inject_error_rate > 0 else {}
    told: str | None = None
    while True:
        try:
            return ledger.rollouts.offer(model=model, challenger=version, plan=plan, tag=tag, environment=environment)
        except RolloutUnderWayError as error:
            other = error.running
            waited_s = (datetime.now(UTC) - other.started_at).total_seconds()
            if waited_s > longest_s(other.plan):
                raise TidemillError(
                    f"rollout of {model} {version}",
                    expected=f"the rollout of {other.challenger} to end within {longest_s(other.plan):.0f} s",
                    got=f"still {other.state} after {waited_s:.0f} s",
                    remedy=f"see {settings.home}/logs/controller.log; 'tidemill rollout back {model}' ends it, then "
                    f"'tidemill rollout start {model} {version}'",
                ) from error
            if told != other.rollout_id:
                log.info("%s %s waits for the end of rollout %s", model, version, other.rollout_id)
                told = other.rollout_id
            time.sleep(POLL_S)
        except ValueError as error:
            raise TidemillError(
                f"rollout of {model} {version}",
                expected="a packaged version that does not serve yet",
                got=str(error),
                remedy="'tidemill models' lists the versions and their states",
            ) from error


def longest_s(plan: RolloutPlan) -> float:
    """The longest that a rollout by this plan takes: every step up to its limit, replica start and slack included."""
    return READY_TIMEOUT_S + sum(step.max_duration_s + DRAIN_TIMEOUT_S for step in plan.steps)


def request_rollback(ledger: Ledger, model: str, reason: str) -> None:
    """End the rollout that is under way: the champion gets all traffic at the controller's next tick.

    Asking twice at the same time is harmless. Raises TidemillError when no rollout of the model is under way.
    """
    running = [state for state in ledger.rollouts.running() if state.model == model]
    for state in running:
        ledger.rollouts.finish(state.rollout_id, "rolled_back", rolled_back(state, reason, datetime.now(UTC)))
    ended = [ledger.rollouts.get(state.rollout_id) for state in running]
    if any(state is not None and state.state == "rolled_back" for state in ended):
        return
    newest = next(reversed(ledger.rollouts.of_model(model)), None)
    raise TidemillError(
        f"rollback of {model}",
        expected="a rollout under way",
        got=f"none; the last one, {newest.rollout_id}, is {newest.state}" if newest else "no rollout at all",
        remedy=f"'tidemill rollout --model {model}' shows them; 'tidemill rollout start' offers an earlier version again",
    )


@dataclass
class Controller:
    """What one life of the process remembers. Losing all of it costs time, never an answer."""

    settings: Settings
    ledger: Ledger
    replicas: Replicas
    _health: dict[Key, Health] = field(default_factory=dict)
    _applied: Routing | None = None
    _applied_version: str | None = None
    _left_routes_at_s: dict[Key, float] = field(default_factory=dict)
    _troubles: set[str] = field(default_factory=set)

    def tick(self) -> None:
        """Look at everything once and do what is next. Trouble with a neighbour is told once and tried again."""
        # In this order: a rollout in the list has its replica, with its environment, in the list read after it.
        running = self.ledger.rollouts.running()
        wanted = self.ledger.rollouts.wanted_replicas()
        with self._tolerating("supervisor"):
            self._look_after_replicas(wanted)
        stats: Snapshot | None = None
        if any(state.step_index >= 0 for state in running):
            with self._tolerating("gateway statistics"):
                stats = read_stats(self.settings)
        for state in running:
            self._advance(state, stats)
        with self._tolerating("gateway"):
            self._route()

    def _look_after_replicas(self, wanted: Sequence[Replica]) -> None:
        routed = None if self._applied is None else endpoints_of(self._applied)
        current = self.replicas.reconcile(wanted, routed)
        for replica in wanted:
            key, now_s = (replica.model, replica.version), time.monotonic()
            before = self._health.get(key, Health(since_s=now_s))
            if key in current:
                self._health[key] = before.seen(probe(replica.port), current[key], time.monotonic())
            else:  # about to be started (anew): what was seen of an earlier process says nothing
                self._health[key] = Health(since_s=before.since_s if before.ready_at_s is None else now_s)
        for key in self._health.keys() - {(replica.model, replica.version) for replica in wanted}:
            del self._health[key]

    def _advance(self, state: RolloutState, stats: Snapshot | None) -> None:
        """Do the next thing with a rollout. The ledger's compare-and-set decides should anyone else act on it."""
        key = (state.model, state.challenger)
        seen = self._health.get(key)
        verdict, words = seen.verdict(time.monotonic()) if seen else ("starting", "its replica is not there yet")
        if verdict == "gone":
            words = f"{words}; it last said: {last_log_line(self.settings, *key) or 'nothing'}"
        rollouts = self.ledger.rollouts
        recorded = rollouts.decisions(state.rollout_id)
        move = next_move(state, health=(verdict, words), now_stats=stats, recorded=recorded, now=datetime.now(UTC))
        if self._done(state, move) and move.decision is not None:
            told = move.decision
            log.info("%s: %s, %s to %s: %s", state.rollout_id, told.action, told.from_stage, told.to_stage, told.reason)

    def _done(self, state: RolloutState, move: Move) -> bool:
        rollouts, rollout_id, step = self.ledger.rollouts, state.rollout_id, state.step_index
        if move.kind == "enter":
            return rollouts.enter_step(rollout_id, step, move.step_index, None, move.decision)
        if move.kind == "rebase":
            log.info("%s: the gateway began to count anew, and so does step %d", rollout_id, step)
            return rollouts.enter_step(rollout_id, step, step, None)
        if move.kind == "finish" and move.decision is not None:
            promoted = move.decision.action == "promote"
            return rollouts.finish(rollout_id, "promoted" if promoted else "rolled_back", move.decision)
        if move.kind == "note" and move.decision is not None:
            return rollouts.record(move.decision)
        return False

    def _route(self) -> None:
        """Make the gateway route as the ledger says, then begin to count new steps, then retire what is not needed."""
        # Replicas first: one that is offered after this line is not in the list, so it is not taken for unneeded.
        wanted = self.ledger.rollouts.wanted_replicas()
        running = self.ledger.rollouts.running()
        champions = {found.model: found.version for found in self.ledger.versions.all() if found.state == "champion"}
        needed = {*champions.items(), *((state.model, state.challenger) for state in running)}
        unneeded = {(replica.model, replica.version) for replica in wanted} - needed
        draining = frozenset(unneeded & (endpoints_of(self._applied) if self._applied else set()))
        parked = self._still_answering_copies(running)
        routing = routing_of(wanted, champions, running, draining, parked)
        if routing != self._applied or gateway.applied_version(self.settings) != self._applied_version:
            self._applied_version = gateway.apply(self.settings, routing)
            self._applied = routing
            log.info("routes: %s", "; ".join(map(_in_words, routing.routes)) or "none")
        uncounted = [
            state for state in running if state.step_index >= 0 and state.baseline is None and state.model not in parked
        ]
        if uncounted or draining:
            stats = read_stats(self.settings)
            for state in uncounted:
                step = state.step_index
                self.ledger.rollouts.enter_step(state.rollout_id, step, step, stats.model_dump(mode="json"))
            self._left_routes_at_s = {key: self._left_routes_at_s.get(key, time.monotonic()) for key in draining}
        for key in unneeded:
            if key not in draining or self._has_drained(key, stats):
                self.ledger.rollouts.drop_replica(*key)
                log.info("%s %s: its replica is needed no longer", *key)

    def _still_answering_copies(self, running: Sequence[RolloutState]) -> frozenset[str]:
        """Models whose challenger has left the shadow with copies in its queue: no client should wait behind those."""
        leaving = [state for state in running if state.baseline is None and leaves_shadow(state)]
        if not leaving:
            return frozenset()
        stats = read_stats(self.settings)
        return frozenset(
            state.model
            for state in leaving
            if stats.of(state.model, state.challenger).n_active > 0
            and (datetime.now(UTC) - state.entered_at).total_seconds() < DRAIN_TIMEOUT_S
        )

    def _has_drained(self, key: Key, stats: Snapshot) -> bool:
        waited_s = time.monotonic() - self._left_routes_at_s[key]
        return waited_s > DRAIN_TIMEOUT_S or (waited_s > DRAIN_MIN_S and stats.of(*key).n_active == 0)

    @contextmanager
    def _tolerating(self, neighbour: str) -> Iterator[None]:
        """Trouble with a neighbour is logged when it begins and when it ends; the next tick tries again."""
        try:
            yield
        except TidemillError as error:
            if neighbour not in self._troubles:
                log.error("%s: %s; trying again", neighbour, error)
                self._troubles.add(neighbour)
            return
        if neighbour in self._troubles:
            log.info("%s: answers again", neighbour)
            self._troubles.discard(neighbour)


def endpoints_of(routing: Routing) -> set[Key]:
    return {(endpoint.model, endpoint.version) for endpoint in routing.endpoints}


def _in_words(route: ModelRoute) -> str:
    if route.challenger is None:
        return f"{route.model} to {route.champion}"
    return f"{route.model} to {route.champion}, {route.stage} {route.share:.0%} to {route.challenger}"


def run(settings: Settings, replicas: Replicas) -> None:
    """Tick until SIGTERM or SIGINT. One controller a home: a second one waits until the first is gone."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with _only_one(settings, stopping):
        controller = Controller(settings, Ledger(settings), replicas)
        log.info("controller of %s", settings.home)
        while not stopping.is_set():
            began_s = time.monotonic()
            try:
                controller.tick()
            except (OperationalError, LedgerAway) as error:
                log.error("ledger: %s; trying again", error)
            stopping.wait(max(0.0, TICK_S - (time.monotonic() - began_s)))
    log.info("stopped")


@contextmanager
def _only_one(settings: Settings, stopping: threading.Event) -> Iterator[None]:
    """Hold the home's lock. The system releases it however the process ends."""
    path = settings.home / "run" / "controller.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        while not stopping.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                stopping.wait(TICK_S)
        yield


if __name__ == "__main__":
    installation = load_settings()
    run(installation, Replicas(installation))
