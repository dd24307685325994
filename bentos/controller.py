"""The rollout controller: walks every rollout through its plan and keeps replicas and routes as the ledger wants them.

`python -m bentos.controller` is the process. The ledger alone holds the state: each tick reads it, does the next thing
and derives the replicas and routes from it again, so the process may be killed at any point and started again. Only the
holder of the ledger's lease acts.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from bentos.counters import Snapshot
from bentos.health import Health
from bentos.lease import Holding
from bentos.looks import Looks
from bentos.moves import Move, counted_from, evidence_of, leaves_shadow, next_move
from bentos.orders import DRAIN_TIMEOUT_S
from bentos.routing import ModelRoute, Routing, routing_of
from bentos.targets.target import Key, LeaseLost, Target
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.engine import LedgerAway
from lake.ledger.rollout_state import Replica, RolloutState
from lake.process_owner import process_owner
from lake.records import RolloutDecision
from lake.settings import Settings, load_settings

TICK_S = 1.0
DRAIN_MIN_S = 2.0
OUTCOMES = {"promote": "promoted", "roll_back": "rolled_back", "end": "ended"}

log = logging.getLogger("controller")


def _nothing() -> None:
    """Nobody waits for a sign of life."""


@dataclass
class Controller:
    """What one life of the process remembers. Losing all of it costs time, never an answer."""

    ledger: Ledger
    target: Target
    token: int = 0
    beat: Callable[[], None] = _nothing
    _health: dict[Key, Health] = field(default_factory=dict)
    _applied: Routing | None = None
    _applied_version: str | None = None
    _left_routes_at_s: dict[Key, float] = field(default_factory=dict)
    _troubles: set[str] = field(default_factory=set)
    _waiting: dict[str, bool] = field(default_factory=dict)
    _begun: set[str] = field(default_factory=set)
    _looks: Looks = field(default_factory=Looks)

    def tick(self) -> None:
        """Look at everything once and do what is next. Trouble with a neighbour is told once and tried again.

        Raises LeaseLost when another process acts by now.
        """
        # In this order: a rollout in the list has its replica, with its environment, in the list read after it.
        running = self.ledger.rollouts.running()
        wanted = self.ledger.rollouts.wanted_replicas()
        with self._tolerating("replicas"):
            self._look_after_replicas(wanted)
        self.beat()
        stats: Snapshot | None = None
        if any(state.step_index >= 0 for state in running):
            with self._tolerating("gateway statistics"):
                stats = self.target.observe()
        else:
            self._is_over("gateway statistics")
        for state in running:
            with self._tolerating(_of(state)):
                self._advance(state, stats)
        self._forget_ended(running)
        self.beat()
        with self._tolerating("gateway"):
            self._route()

    def _look_after_replicas(self, wanted: Sequence[Replica]) -> None:
        routed = None if self._applied is None else endpoints_of(self._applied)
        current = self.target.reconcile(wanted, routed)
        for replica in wanted:
            key, now_s = (replica.model, replica.version), time.monotonic()
            before = self._health.get(key, Health(since_s=now_s))
            if key in current:
                seen = current[key]
                self._health[key] = before.seen(seen.probe, seen.identity, time.monotonic())
            else:  # about to be started (anew): what was seen of an earlier process says nothing
                self._health[key] = Health(since_s=before.since_s if before.ready_at_s is None else now_s)
        for key in self._health.keys() - {(replica.model, replica.version) for replica in wanted}:
            del self._health[key]

    def _advance(self, state: RolloutState, stats: Snapshot | None) -> None:
        """Do the next thing with a rollout. The ledger's compare-and-set decides should anyone else act on it."""
        key = (state.model, state.challenger)
        health = self._health.get(key)
        if state.rollout_id not in self._begun:
            self._begun.add(state.rollout_id)
            if state.step is None and health and health.verdict(time.monotonic())[0] == "gone":
                # It died as a champion before, or as a challenger: it is looked at anew.
                health = self._health[key] = Health(since_s=time.monotonic())
        verdict, words = health.verdict(time.monotonic()) if health else ("starting", "its replica is not there yet")
        if verdict == "gone":
            words = f"{words}; it last said: {_printable(self.target.last_words(*key) or 'nothing')}"
        seen = self.ledger.rollout_observations.after(state.rollout_id, evidence_of(state).observed)
        recorded = self.ledger.rollouts.decisions(state.rollout_id)
        move = next_move(
            state, health=(verdict, words), now_stats=stats, seen=seen, recorded=recorded, now=datetime.now(UTC)
        )
        # Before the act: who hears that a rollout has ended finds its last look.
        if (look := self._looks.due(state, move)) is not None:
            self.ledger.rollout_looks.add(look)
        if not self._done(state, move) or move.decision is None:
            return
        told = move.decision
        self._alarm(state, move, told)
        if move.is_news:
            log.info("%s: %s, %s to %s: %s", state.rollout_id, told.action, told.from_stage, told.to_stage, told.reason)

    def _done(self, state: RolloutState, move: Move) -> bool:
        rollouts, rollout_id = self.ledger.rollouts, state.rollout_id
        evidence = None if move.evidence is None else move.evidence.model_dump(mode="json")
        if move.kind == "enter":
            step, revision = state.step_index, state.revision
            return rollouts.enter_step(rollout_id, step, move.step_index, evidence, move.decision, revision)
        if move.kind == "weigh" and evidence is not None:
            if move.decision is None:
                log.info("%s: the gateway began to count anew, and so does this look", rollout_id)
            return rollouts.weigh(state, evidence, move.decision if move.is_news else None)
        if move.kind == "finish" and move.decision is not None:
            outcome = OUTCOMES[move.decision.action]
            return rollouts.finish(rollout_id, outcome, move.decision, revision=state.revision)
        return False

    def _alarm(self, state: RolloutState, move: Move, told: RolloutDecision) -> None:
        """What goes on waiting until a person acts: a split that is not as planned, a step that is over without verdict."""
        step, looked = state.step, move.looked
        waits = move.kind == "weigh" and told.action == "hold"
        over = waits and step is not None and looked is not None and looked.elapsed_s >= step.max_duration_s
        broken = waits and told.split is not None and told.split.broken
        subject = _waits(state)
        if self._waiting.get(subject) == (over or broken):
            return
        self._waiting[subject] = over or broken
        if over or broken:
            self.ledger.alarms.raised(subject, told.reason)
        else:
            self.ledger.alarms.cleared(subject)

    def _route(self) -> None:
        """Make the gateway route as the ledger says, then begin to count new steps, then retire what is not needed."""
        # Replicas first: one that is offered after this line is not in the list, so it is not taken for unneeded.
        wanted = self.ledger.rollouts.wanted_replicas()
        running = self.ledger.rollouts.running()
        retained = self.ledger.rollouts.retained(datetime.now(UTC)).keys()
        champions = {found.model: found.version for found in self.ledger.versions.all() if found.state == "champion"}
        needed = {*champions.items(), *((state.model, state.challenger) for state in running), *retained}
        unneeded = {(replica.model, replica.version) for replica in wanted} - needed
        draining = frozenset(unneeded & (endpoints_of(self._applied) if self._applied else set()))
        parked = self._still_answering_copies(running)
        routing = routing_of(wanted, champions, running, draining | retained, parked)
        if routing != self._applied or self.target.applied_version() != self._applied_version:
            self._applied_version = self.target.apply(routing, self.token)
            self._applied = routing
            log.info("routes: %s", "; ".join(map(_in_words, routing.routes)) or "none")
        uncounted = [
            state
            for state in running
            if state.step_index >= 0 and evidence_of(state).snapshot is None and state.model not in parked
        ]
        stats = self.target.observe() if uncounted or draining else None
        if stats is not None:
            for state in uncounted:
                begun = counted_from(evidence_of(state), stats, state)
                self.ledger.rollouts.weigh(state, begun.model_dump(mode="json"))
            self._left_routes_at_s = {key: self._left_routes_at_s.get(key, time.monotonic()) for key in draining}
        for key in unneeded:
            if key not in draining or (stats is not None and self._has_drained(key, stats)):
                self.ledger.rollouts.drop_replica(*key)
                log.info("%s %s: its replica is needed no longer", *key)

    def _still_answering_copies(self, running: Sequence[RolloutState]) -> frozenset[str]:
        """Models whose challenger has left the shadow with copies in its queue: no client should wait behind those."""
        leaving = [state for state in running if leaves_shadow(state) and evidence_of(state).snapshot is None]
        if not leaving:
            return frozenset()
        patient = [s for s in leaving if (datetime.now(UTC) - s.entered_at).total_seconds() < DRAIN_TIMEOUT_S]
        try:
            stats = self.target.observe()
        except TidemillError:  # nobody tells: taken for busy, as no other model's routes should wait for that
            return frozenset(state.model for state in patient)
        return frozenset(s.model for s in patient if stats.of(s.model, s.challenger).n_active > 0)

    def _has_drained(self, key: Key, stats: Snapshot) -> bool:
        waited_s = time.monotonic() - self._left_routes_at_s[key]
        return waited_s > DRAIN_TIMEOUT_S or (waited_s > DRAIN_MIN_S and stats.of(*key).n_active == 0)

    @contextmanager
    def _tolerating(self, neighbour: str) -> Iterator[None]:
        """Trouble with a neighbour is logged and alarmed when it begins, and cleared when it ends; the next tick tries
        again. What is wrong with one rollout does not hold up another."""
        try:
            yield
        except (LeaseLost, OperationalError, LedgerAway):
            raise
        except Exception as error:
            if not isinstance(error, TidemillError):
                log.debug("%s", neighbour, exc_info=error)
            if neighbour not in self._troubles:
                log.error("%s: %s; trying again", neighbour, error)
                self._troubles.add(neighbour)
                self.ledger.alarms.raised(neighbour, str(error))
            return
        self._is_over(neighbour)

    def _is_over(self, trouble: str) -> None:
        if trouble in self._troubles:
            log.info("%s: in order again", trouble)
            self._troubles.discard(trouble)
            self.ledger.alarms.cleared(trouble)

    def _forget_ended(self, running: Sequence[RolloutState]) -> None:
        """Alarms of rollouts that were ended by an operator, or while they were in trouble."""
        for subject in self._waiting.keys() - {_waits(state) for state in running}:
            del self._waiting[subject]
            self.ledger.alarms.cleared(subject)
        ended = {trouble for trouble in self._troubles if trouble.startswith("rollout ")}
        for trouble in ended - {_of(state) for state in running}:
            self._is_over(trouble)


def _printable(text: str) -> str:
    """A database takes no NUL, and a terminal no control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def _of(state: RolloutState) -> str:
    return f"rollout {state.rollout_id}"


def _waits(state: RolloutState) -> str:
    return f"rollout {state.rollout_id} waits"


def endpoints_of(routing: Routing) -> set[Key]:
    return {(endpoint.model, endpoint.version) for endpoint in routing.endpoints}


def _in_words(route: ModelRoute) -> str:
    if route.challenger is None:
        return f"{route.model} to {route.champion}"
    return f"{route.model} to {route.champion}, {route.stage} {route.share:.0%} to {route.challenger}"


def run(settings: Settings, open_target: Callable[[Settings], Target]) -> None:
    """Tick until SIGTERM or SIGINT, whenever this process holds the lease. A second controller waits for it."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    ledger = Ledger(settings)
    holding = Holding(ledger.leases, process_owner())
    controller: Controller | None = None
    while not stopping.is_set():
        began_s = time.monotonic()
        try:
            controller = _held(settings, ledger, holding, controller, open_target)
            if controller is not None:
                controller.tick()
        except LeaseLost as error:
            log.warning("%s; waiting for the lease", error)
            holding.held = None
        except TidemillError as error:
            log.error("%s; trying again", error)
        except (SQLAlchemyError, LedgerAway) as error:  # away, or its disk is full: what was begun is begun again
            log.error("ledger: %s; trying again", error)
        except Exception:  # a new life would only meet it again, and have lost what this one knows
            log.exception("trying again")
        stopping.wait(max(0.0, TICK_S - (time.monotonic() - began_s)))
    with suppress(SQLAlchemyError, LedgerAway):
        holding.release()
    log.info("stopped")


def _held(
    settings: Settings,
    ledger: Ledger,
    holding: Holding,
    controller: Controller | None,
    open_target: Callable[[Settings], Target],
) -> Controller | None:
    """The controller while the lease is held: a fresh one, that assumes nothing, whenever it was taken anew."""
    if not holding.look(time.monotonic()) or holding.held is None:
        return None
    if controller is None or holding.held.token != controller.token:
        log.info("controller of %s, lease %d", settings.home, holding.held.token)
        for alarm in ledger.alarms.open():  # of lives before: what still holds is raised again
            ledger.alarms.cleared(alarm.subject)
        return Controller(ledger, open_target(settings), holding.held.token, holding.beat)
    return controller


def open_target(settings: Settings) -> Target:
    """Where this installation serves its models. Raises TidemillError when that cannot be reached at all."""
    if settings.target == "kubernetes":
        from bentos.targets.kubernetes import KubernetesTarget, load_kubernetes_settings

        return KubernetesTarget(load_kubernetes_settings())
    from bentos.replicas import Replicas
    from bentos.targets.local import LocalTarget

    return LocalTarget(settings, Replicas(settings))


if __name__ == "__main__":
    run(load_settings(), open_target)
