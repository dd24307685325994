"""The dead man's switch of rollouts: when the controller stays dead, no challenger goes on answering clients unwatched."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from bentos.lease import NAME, Holding
from bentos.routing import Routing, routing_of
from bentos.targets.target import LeaseLost, Target
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.engine import LedgerAway
from lake.ledger.leases import Lease
from lake.process_owner import process_owner

# The supervisor starts a controller that died within a second; one that hangs is given longer than a slow disk takes.
STANDSTILL_S = 30.0
TICK_S = 2.0
SUBJECT = "controller"

log = logging.getLogger("watchdog")


@dataclass
class Watchdog:
    """Looks at the controller's lease. It only ever takes traffic away from challengers; everything else is the
    controller's, which finds its rollouts as they were when it comes back."""

    ledger: Ledger
    open_target: Callable[[], Target]
    standstill_s: float = STANDSTILL_S

    def __post_init__(self) -> None:
        self._holding = Holding(self.ledger.leases, f"watchdog of {process_owner()}")
        self._missing_since_s: float | None = None
        self._acted = False
        self._last: Lease | None = None

    def tick(self, now_s: float) -> bool:
        """Look once; `now_s` are monotonic seconds. Whether it took the traffic from challengers just now.

        A lease that nobody holds for `standstill_s` counts as a standstill, too: no controller has come back for it.
        """
        if not self.ledger.rollouts.running():
            self._missing_since_s = None
            return False
        before, found = self._last, self.ledger.leases.get(NAME)
        self._last = found
        # Of one life: a controller that dies again and again takes the lease each time, and acts on nothing.
        if found is not None and before is not None and found.token == before.token and found.beat > before.beat:
            self._missing_since_s, self._acted = None, False
            return False
        if self._missing_since_s is None:
            self._missing_since_s = now_s
        if self._acted or now_s - self._missing_since_s < self.standstill_s:
            return False
        return self._make_safe(now_s)

    def run(self, stopping: threading.Event) -> None:
        """Look every TICK_S until told to stop. What is away is tried again."""
        while not stopping.wait(TICK_S):
            try:
                self.tick(time.monotonic())
            except LeaseLost:
                continue  # a controller is back
            except (TidemillError, SQLAlchemyError, LedgerAway) as error:
                log.error("%s; trying again", error)
            except Exception:  # whatever it is: without this thread nobody would notice anything any more
                log.exception("trying again")

    def _make_safe(self, now_s: float) -> bool:
        """All traffic to the champions, with a lease of its own: what a sleeping controller had begun is refused.

        The alarm comes first: it is all that there is should the gateway not take the routes.
        """
        if not self._holding.look(now_s, 0.0) or self._holding.held is None:
            return False
        waiting = ", ".join(state.rollout_id for state in self.ledger.rollouts.running())
        message = (
            f"no sign of life for {self.standstill_s:.0f} s: champions get all traffic, {waiting} waits; see "
            "logs/controller.log, and 'tidemill up' starts what is missing"
        )
        if self.ledger.alarms.raised(SUBJECT, message):
            log.error("controller: %s", message)
        try:
            self.open_target().apply(self._champions_alone(), self._holding.held.token)
        finally:
            self._holding.release()
        self._acted = True
        return True

    def _champions_alone(self) -> Routing:
        champions = {found.model: found.version for found in self.ledger.versions.all() if found.state == "champion"}
        replicas = self.ledger.rollouts.wanted_replicas()
        everything = frozenset((replica.model, replica.version) for replica in replicas)
        return routing_of(replicas, champions, (), everything)
