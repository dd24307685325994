"""Points on stages: Beam job, trainer, exporter and packager, each in a process of its own: struck, then run again."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from datetime import timedelta

from lake.stage import sweep
from tests.chaos.inputs import Inbox, Upload
from tests.chaos.invariants import Violation, violations
from tests.chaos.points import Outcome, Point
from tests.chaos.proxy import Rule
from tests.chaos.strikes import Strike, drawn, wait_until_fired, work_requests
from tests.chaos.subjects import STAGE_TIMEOUT_S, Child, Drops, Versions, run_stage, validation_losses
from tests.chaos.warm import is_alive
from tests.chaos.world import World
from tests.servers import wait_until

STAGES = {"beam job": "prepare", "trainer": "train", "exporter": "export", "packager": "package"}
# Struck at a random time instead of at a request: within local files, subprocesses, transactions.
SHARE_BY_TIME = 0.3
MAX_RUNS = 4
# Resumed from whichever checkpoint or from none, a training reaches the same loss.
SAME_LOSS = 1e-5


class StagePoints:
    """The bench for all four targets: one store and one ledger, neither Prefect nor `serve`."""

    def __init__(self, world: World) -> None:
        self._world, self._context = world, world.context
        self._drops, self._versions = Drops(world), Versions(world)
        # Of an undisturbed run: how many requests there are to strike, and how long it takes.
        self._n_requests: dict[str, int] = {}
        self._took_s: dict[str, float] = {}

    def run(self, point: Point) -> Outcome:
        stage = STAGES[point.target]
        if stage not in self._n_requests:
            self._measure(stage, point.batch_seed + 5_000)
        started = time.monotonic()
        outcome = Outcome(point)
        inbox, subject = self._next(stage, point.batch_seed)
        self._struck(outcome, stage, inbox.model, subject)
        if stage == "prepare" and not outcome.violations:
            self._drops.settle(inbox, subject)
        outcome.violations += self._verified(inbox, self._drops.listed() if stage == "prepare" else inbox.uploads)
        outcome.took_s = time.monotonic() - started
        return outcome

    def _next(self, stage: str, seed: int) -> tuple[Inbox, str]:
        return self._drops.next(seed) if stage == "prepare" else self._versions.next(stage)

    def _measure(self, stage: str, seed: int) -> None:
        inbox, subject = self._next(stage, seed)
        self._world.arm(Rule(key=work_requests(inbox.model)))
        started = time.monotonic()
        error = run_stage(self._world, stage, inbox.model, subject)
        assert error is None, error
        self._took_s[stage] = time.monotonic() - started
        self._n_requests[stage] = self._world.seen()["matched"]
        if stage == "prepare":
            self._drops.settle(inbox, subject)

    def _struck(self, outcome: Outcome, stage: str, model: str, subject: str) -> None:
        """Run the stage into its fault, then again as a restarted worker would, until it is committed."""
        point, draw = outcome.point, outcome.point.draw()
        warm = self._world.live if stage == "prepare" else self._world.training
        child = Child(self._world, warm, stage, model, subject)
        strike = drawn(draw, point.fault, work_requests(model), child.process.pid, self._n_requests[stage])
        if point.fault == "kill" and draw.random() < SHARE_BY_TIME:
            self._kill_by_time(outcome, child, draw.uniform(0, self._took_s[stage]))
        else:
            self._world.arm(strike.rule)
            child.go()
            request = self._fired(child)
            outcome.fired, outcome.where = request is not None, f"{strike.where}: {request}"
        struck_at = time.monotonic()
        error = "stopped" if point.fault.startswith("stop") else child.wait()
        n_runs = 1
        while error is not None and n_runs < MAX_RUNS:
            error = run_stage(self._world, stage, model, subject)
            n_runs += 1
        if error is not None:
            outcome.violations.append(Violation("stuck", f"{stage} of {subject} failed {n_runs} times: {error}"))
        outcome.recovery_s = time.monotonic() - struck_at
        self._wake(child, strike)

    def _kill_by_time(self, outcome: Outcome, child: Child, wait_s: float) -> None:
        outcome.where = f"SIGKILL after {wait_s:.2f} s"
        self._world.arm(Rule())
        child.go()
        time.sleep(wait_s)
        outcome.fired = is_alive(child.process)
        child.signal(signal.SIGKILL)

    def _fired(self, child: Child) -> str | None:
        """Wait until the fault has happened, or the stage has ended without it. Returns the request."""
        while is_alive(child.process):
            if request := wait_until_fired(self._world, 0.2):
                return request
        return wait_until_fired(self._world, 0.0)

    def _wake(self, child: Child, strike: Strike) -> None:
        """What was in flight arrives now that another process has committed; what was paused goes on to its end."""
        if strike.holds:
            self._world.seen(release=True)
            time.sleep(0.3)
        child.signal(signal.SIGCONT)
        wait_until("the resumed stage ends", lambda: not is_alive(child.process), timeout_s=STAGE_TIMEOUT_S)
        with suppress(ProcessLookupError):  # what a killed stage has left running
            os.killpg(child.process.pid, signal.SIGKILL)
        self._world.arm(Rule())

    def _verified(self, inbox: Inbox, uploads: list[Upload]) -> list[Violation]:
        sweep(self._context.ledger, self._context.bucket, abandoned_after=timedelta(0))
        found = violations(self._context, inbox.model, uploads)
        losses = validation_losses(self._context)
        if losses and max(losses.values()) - min(losses.values()) > SAME_LOSS:
            found.append(Violation("half-read", f"the same training reached different losses: {losses}"))
        return found
