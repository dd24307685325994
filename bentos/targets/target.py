"""What the rollout controller asks of the place where models are served."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from bentos.counters import Snapshot
from bentos.health import Probe
from bentos.routing import Routing
from lake.errors import TidemillError
from lake.ledger.rollout_state import Replica

Key = tuple[str, str]  # model, version


@dataclass(frozen=True)
class Sighting:
    """One look at a replica. `identity` changes when its process does (a pid, a pod's uid); None while there is none."""

    identity: str | None
    probe: Probe


class LeaseLost(TidemillError):
    """Somebody else acts by now: whoever meets this stops acting."""


class Target(Protocol):
    """Every method may be repeated, and the process may be killed in it: the next call starts over.

    All raise a TidemillError when what they talk to does not answer or refuses.
    """

    def reconcile(self, wanted: Sequence[Replica], routed: Collection[Key] | None) -> dict[Key, Sighting]:
        """One step towards the wanted replicas; never waits for one to start or to end.

        Returns those that are the wanted ones. One that is no longer wanted is ended (SIGTERM, then patience) unless
        `routed`, the versions that the gateway still knows, holds it; None when that is unknown: none is ended then.
        """

    def apply(self, routing: Routing, token: int) -> str:
        """Make the gateway route as told; returns the version that it confirmed.

        `token` is the lease's: a routing by a newer holder is never replaced by an older one's (LeaseLost is raised).
        """

    def applied_version(self) -> str | None:
        """The version of the routes that the gateway runs now; None when it is not there."""

    def observe(self) -> Snapshot:
        """What has been counted of every version that the gateway knows."""

    def last_words(self, model: str, version: str) -> str | None:
        """The last line that a replica logged, at most 300 characters; None when it said nothing."""
