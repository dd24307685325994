"""Who may act on rollouts: one process at a time, told by a lease in the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field

from bentos.targets.target import LeaseLost
from lake.ledger.leases import Lease, Leases
from lake.process_owner import is_gone

NAME = "controller"
# A holder whose beat stands still for so long is taken for dead. One that only slept finds its lease lost, and the
# gateway refuses what it had begun by the older token. A holder that is known to be gone is not waited for.
STANDSTILL_S = 15.0


@dataclass
class Holding:
    """This process's part in a lease: waiting for it, or holding it. Times are monotonic seconds of its own."""

    leases: Leases
    holder: str
    name: str = NAME
    held: Lease | None = None
    _seen: Lease | None = field(default=None)
    _seen_at_s: float = 0.0

    def look(self, now_s: float, standstill_s: float = STANDSTILL_S) -> bool:
        """Beat while it is held; take it once nobody else holds it. Whether it is held now."""
        if self.held is not None:
            self.held = self.leases.beat(self.held)
            if self.held is not None:
                return True
        found = self.leases.get(self.name)
        if found is None or self.stands_still(found, now_s, standstill_s):
            self.held = self.leases.take(self.name, self.holder, found)
        return self.held is not None

    def stands_still(self, found: Lease, now_s: float, standstill_s: float) -> bool:
        """Whether nobody holds the lease, or its holder has ended or shown no sign of life for so long."""
        if found != self._seen:
            self._seen, self._seen_at_s = found, now_s
        return found.holder is None or is_gone(found.holder) or now_s - self._seen_at_s >= standstill_s

    def beat(self) -> None:
        """Show life in the middle of long work. Raises LeaseLost when somebody else holds the lease by now."""
        held, self.held = self.held, self.leases.beat(self.held) if self.held is not None else None
        if self.held is None:
            raise LeaseLost(
                f"lease {self.name}",
                expected=f"to hold it, with token {held.token if held else 'none'}",
                got=f"{self.leases.get(self.name)}",
                remedy="none is needed: the holder acts",
            )

    def release(self) -> None:
        if self.held is not None:
            self.leases.release(self.held)
            self.held = None
