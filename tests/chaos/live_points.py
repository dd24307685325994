"""Points on the running installation: a batch is dropped, something is struck, and nobody helps until all is settled."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import timedelta

import psutil

from lake.stage import sweep
from tests.chaos.clock import Clock
from tests.chaos.inputs import Inbox
from tests.chaos.invariants import SETTLED, Violation, violations
from tests.chaos.points import Outcome, Point
from tests.chaos.proxy import Rule
from tests.chaos.services import resume_later
from tests.chaos.strikes import drawn, inbox_requests, wait_until_fired, work_requests
from tests.chaos.warm import is_alive
from tests.chaos.world import World

POINTS_PER_MODEL = 6
SETTLED_WITHIN_S, TAKEN_OVER_WITHIN_S = 90.0, 30.0
FIRED_WITHIN_S = 15.0
QUIET_FOR_S, QUIET_WITHIN_S = 2.0, 20.0
SERVICES = {"watcher": "serve", "flow": "serve", "nanio": "nanio", "Prefect server": "prefect"}
# A share of kills strikes at a random time instead of at a request: within transactions, between requests.
SHARE_BY_TIME = 0.3
SHARE_CHANGED = 0.4
BY_TIME_WITHIN_S = 4.0  # later than that, a batch may have settled
DISK_FULL_S = (1.0, 5.0)
CLOCK_STEPS_S = (-86_400, -3_600, -600, -30, 30, 600, 3_600, 86_400)
# S3 refuses requests that are signed further off: with such a clock nothing goes on until it is put right.
MAX_SKEW_S = 900


class LivePoints:
    """The bench for watcher, flow, nanio, ledger and Prefect server."""

    def __init__(self, world: World) -> None:
        self._world, self._context = world, world.context
        self._n_models, self._n_points = 0, POINTS_PER_MODEL
        self._inbox: Inbox
        self._n_requests = 0
        self._took_s = 0.0
        self._clock = Clock(world)

    def run(self, point: Point) -> Outcome:
        if not self._n_requests:
            self._measure(point.batch_seed + 5_000)
        outcome, started = Outcome(point), time.monotonic()
        outcome.skipped = self._refusal(point)
        if outcome.skipped is None:
            inbox = self._next_inbox()
            strike = {"disk full": self._fill_a_disk, "clock step": self._step_the_clock}.get(point.fault, self._strike)
            struck_at = strike(outcome, inbox, point.draw())
            self._settled(outcome, inbox, struck_at)
        outcome.took_s = time.monotonic() - started
        return outcome

    def _refusal(self, point: Point) -> str | None:
        """Why this machine cannot do that, if it cannot."""
        if point.fault == "disk full":
            return self._world.store_disk.refused
        return self._clock.refused if point.fault == "clock step" else None

    def _measure(self, seed: int) -> None:
        """An undisturbed batch: how many requests there are to strike, and how long it takes."""
        inbox = self._next_inbox()
        self._world.arm(Rule(key=work_requests(inbox.model)))
        started = time.monotonic()
        inbox.put_batch(seed)
        assert self._wait(inbox), "an undisturbed batch did not settle"
        self._took_s = min(time.monotonic() - started, BY_TIME_WITHIN_S)
        # While they are put, the objects may fall into two drops; what is struck is within the work of one.
        self._n_requests = self._world.seen()["matched"] // len(self._context.ledger.drops.states(inbox.model))

    def _next_inbox(self) -> Inbox:
        if self._n_points >= POINTS_PER_MODEL:
            if self._n_models:
                self._inbox.retire()
            self._n_models, self._n_points = self._n_models + 1, 0
            self._inbox = self._world.inbox(f"live-{self._n_models}")
            self._inbox.register()
        self._n_points += 1
        return self._inbox

    def _strike(self, outcome: Outcome, inbox: Inbox, draw: random.Random) -> float:
        """A kill, a pause or a fault of the store. Returns when it was over."""
        point, name = outcome.point, SERVICES[outcome.point.target]
        watches = point.target == "watcher"
        key = inbox_requests(inbox.model) if watches else work_requests(inbox.model)
        process = self._world.supervisor.services[name].process
        if point.fault == "kill" and draw.random() < SHARE_BY_TIME:
            return self._kill_by_time(outcome, inbox, draw, process)
        strike = drawn(draw, point.fault, key, process.pid, 6 if watches else self._n_requests)
        self._world.arm(strike.rule)
        self._put(inbox, outcome.point, draw)
        request = wait_until_fired(self._world, FIRED_WITHIN_S, over=lambda: self._is_settled(inbox))
        outcome.fired, outcome.where = request is not None, f"{strike.where}: {request}"
        if strike.resume_after_s is not None:
            resume_later(process.pid, strike.resume_after_s).join()
            self._world.seen(release=True)
        elif point.fault == "stop, taken over, resume" and outcome.fired:
            return self._taken_over(outcome.point, inbox, process)
        elif strike.holds:  # the dead process' request arrives while its successor is at work
            time.sleep(draw.uniform(0.5, 3.0))
            self._world.seen(release=True)
        return time.monotonic()

    def _kill_by_time(self, outcome: Outcome, inbox: Inbox, draw: random.Random, process: psutil.Process) -> float:
        wait_s = draw.uniform(0, self._took_s)
        outcome.where = f"SIGKILL {wait_s:.2f} s after the batch"
        self._world.arm(Rule())
        self._put(inbox, outcome.point, draw)
        time.sleep(wait_s)
        outcome.fired = is_alive(process)
        with suppress(psutil.NoSuchProcess):
            process.kill()
        return time.monotonic()

    def _taken_over(self, point: Point, inbox: Inbox, paused: psutil.Process) -> float:
        """Another `serve` takes over from the paused one, which wakes up when everything is done.

        One object more comes meanwhile: its drop may overtake the one that was under way. Should the pause have met a
        transaction, nobody can write to SQLite before it is over.
        """
        began = time.monotonic()
        second = self._world.fork_serve()
        inbox.put_many(1, point.batch_seed + 1_000_000)
        self._wait(inbox, TAKEN_OVER_WITHIN_S)
        self._world.seen(release=True)
        paused.send_signal(signal.SIGCONT)
        self._wait_for_quiet()  # it would commit now
        second.kill()
        return began

    def _wait_for_quiet(self) -> None:
        """Until no stage has asked the store for anything for a while."""
        deadline, n_requests, since = time.monotonic() + QUIET_WITHIN_S, -1, time.monotonic()
        while time.monotonic() < min(deadline, since + QUIET_FOR_S):
            matched = self._world.seen()["matched"]
            if matched != n_requests:
                n_requests, since = matched, time.monotonic()
            time.sleep(0.1)

    def _fill_a_disk(self, outcome: Outcome, inbox: Inbox, draw: random.Random) -> float:
        disk = self._world.store_disk if outcome.point.target == "nanio" else self._world.home_disk
        self._world.arm(Rule())
        self._put(inbox, outcome.point, draw)
        wait_s, full_s, left = draw.uniform(0, self._took_s), draw.uniform(*DISK_FULL_S), draw.choice((0, 4096, 40_000))
        time.sleep(wait_s)
        disk.fill(left)
        time.sleep(full_s)
        disk.empty()
        outcome.fired = True
        outcome.where = f"{wait_s:.2f} s after the batch, {left} bytes left for {full_s:.1f} s"
        return time.monotonic()

    def _step_the_clock(self, outcome: Outcome, inbox: Inbox, draw: random.Random) -> float:
        step_s, wait_s = draw.choice(CLOCK_STEPS_S), draw.uniform(0, self._took_s)
        self._world.arm(Rule())
        with self._clock.instead_of_serve():
            self._put(inbox, outcome.point, draw)
            time.sleep(wait_s)
            self._clock.step(step_s)
            outcome.fired, outcome.where = True, f"{step_s:+d} s, {wait_s:.2f} s after the batch"
            if abs(step_s) > MAX_SKEW_S:
                time.sleep(draw.uniform(1.0, 5.0))
                self._clock.step(0)
            began = time.monotonic()
            self._wait(inbox)
        return began

    def _put(self, inbox: Inbox, point: Point, draw: random.Random) -> None:
        """A batch; for some, one object is overwritten and one deleted a little later, which may make a drop more."""
        self._while_the_store_is_away(lambda: inbox.put_batch(point.batch_seed))
        if draw.random() < SHARE_CHANGED:
            time.sleep(draw.uniform(0.0, 1.5))
            self._while_the_store_is_away(lambda: inbox.change_batch(point.batch_seed))

    def _while_the_store_is_away(self, put: Callable[[], None]) -> None:
        """A client that tries again: what it could not put is not there."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return put()
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    def _settled(self, outcome: Outcome, inbox: Inbox, struck_at: float) -> None:
        if not self._wait(inbox):
            states = [(state.drop_id, state.state, state.message) for state in self._states(inbox)]
            told = f"not settled within {SETTLED_WITHIN_S:g} s: {[each for each in states if each[1] not in SETTLED]}"
            outcome.violations.append(Violation("stuck", told))
        outcome.recovery_s = time.monotonic() - struck_at
        self._world.arm(Rule())
        self._world.wait_for_store()
        sweep(self._context.ledger, self._context.bucket, abandoned_after=timedelta(0))
        outcome.violations += violations(self._context, inbox.model, inbox.uploads)

    def _states(self, inbox: Inbox) -> list[object]:
        return list(self._context.ledger.drops.states(inbox.model))

    def _wait(self, inbox: Inbox, timeout_s: float = SETTLED_WITHIN_S) -> bool:
        """Wait until everything that is in the inbox is in a settled drop."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._is_settled(inbox):
                return True
            time.sleep(0.1)
        return False

    def _is_settled(self, inbox: Inbox) -> bool:
        """Asked of the file, without the product's lock: a paused process may hold that."""
        query = (
            "SELECT state FROM drops WHERE model = ?",
            "SELECT key, etag, drop_id, state FROM objects WHERE model = ?",
        )
        try:
            with closing(sqlite3.connect(f"file:{self._world.direct.home}/ledger.db?mode=ro", uri=True)) as ledger:
                states, rows = (ledger.execute(told, (inbox.model,)).fetchall() for told in query)
        except sqlite3.OperationalError:  # its disk may be full
            return False
        if any(state not in (*SETTLED, "poison") for (state,) in states) or any(row[3] == "seen" for row in rows):
            return False
        assigned = {(key, etag) for key, etag, drop_id, _ in rows if drop_id is not None}
        return all((each.key, each.etag) in assigned for each in inbox.uploads if not each.gone)
