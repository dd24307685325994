"""Whether a replica lives, judged from successive looks at it: one slow answer while every core computes is no death."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import httpx

from bentos import loopback

Probe = Literal["ready", "slow", "refused"]
Verdict = Literal["starting", "ready", "gone"]

PROBE_TIMEOUT_S = 2.0
# A bento is ready after 7 to 22 s on free cores; training may hold them all meanwhile.
READY_TIMEOUT_S = 300.0
# Refusals in a row, one a second: Envoy's own health check has noticed by then, too.
MAX_REFUSED = 3
MAX_SILENCE_S = 30.0
# Looks at another process than before, or at none: one that dies within the second is never met alive.
MAX_DEATHS_BEFORE_READY = 4


@dataclass(frozen=True)
class Health:
    """What has been seen of one replica since `since_s` (monotonic seconds). `identities` are its processes, oldest first.

    `n_absent` are looks that met no process, before it was ready.
    """

    since_s: float
    ready_at_s: float | None = None
    ready_as: str | None = None
    n_refused: int = 0
    n_absent: int = 0
    identities: tuple[str, ...] = ()
    looked_at_s: float | None = None

    def seen(self, probe: Probe, identity: str | None, now_s: float) -> Health:
        """The same after one more look. `identity` is None while no process runs."""
        identities = (
            self.identities if identity is None or identity in self.identities else (*self.identities, identity)
        )
        if probe == "ready":
            return replace(
                self,
                identities=identities,
                ready_at_s=now_s,
                n_refused=0,
                ready_as=self.ready_as or identity,
                looked_at_s=now_s,
            )
        return replace(
            self,
            identities=identities,
            n_refused=self.n_refused + 1 if probe == "refused" else 0,
            n_absent=self.n_absent + (identity is None),
            looked_at_s=now_s,
        )

    def verdict(self, now_s: float) -> tuple[Verdict, str]:
        """`gone` is final for a challenger; the words say why. A replica that was never ready may take its time.

        Times end with the last look: where nobody could look, nothing is known of the replica.
        """
        now_s = now_s if self.looked_at_s is None else min(now_s, self.looked_at_s)
        if self.ready_at_s is None:
            return self._verdict_before_ready(now_s)
        if self.ready_as is not None and self.identities and self.identities[-1] != self.ready_as:
            return "gone", "its process died"
        if self.n_refused >= MAX_REFUSED:
            return "gone", f"it refused {self.n_refused} health checks in a row"
        silence_s = now_s - self.ready_at_s
        if silence_s > MAX_SILENCE_S:
            return "gone", f"it has not been ready for {silence_s:.0f} s"
        return "ready", "it is ready"

    def _verdict_before_ready(self, now_s: float) -> tuple[Verdict, str]:
        waited_s = now_s - self.since_s
        if max(0, len(self.identities) - 1) + self.n_absent >= MAX_DEATHS_BEFORE_READY:
            return "gone", "its process died again and again before it was ready"
        if waited_s > READY_TIMEOUT_S:
            return "gone", f"it was not ready within {READY_TIMEOUT_S:.0f} s"
        return "starting", f"its replica has been starting for {waited_s:.0f} s"


def probe(port: int) -> Probe:
    """Ask a replica on loopback whether it is ready. Any answer but 200 counts as a refusal, silence as slowness."""
    try:
        with loopback.client(f"http://127.0.0.1:{port}", PROBE_TIMEOUT_S) as client:
            answer = client.get("/readyz")
    except httpx.TimeoutException:
        return "slow"
    except httpx.TransportError:
        return "refused"
    return "ready" if answer.status_code == httpx.codes.OK else "refused"
