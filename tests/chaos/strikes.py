"""How a fault comes about: which request of which process meets what, drawn from the point's seed."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.proxy import Rule
from tests.chaos.world import World

STORE_FAULTS = ("error", "delay", "reset_before", "reset_after", "cut", "half")


@dataclass
class Strike:
    """A rule of the proxy, and what belongs to it afterwards."""

    rule: Rule
    resume_after_s: float | None = None
    where: str = ""

    @property
    def holds(self) -> bool:
        return self.rule.fault == "signal_hold"


def inbox_requests(model: str) -> str:
    """The watcher's: listings of the inbox."""
    return rf"list-type=2.*prefix=inbox/{model}/"


def work_requests(model: str) -> str:
    """Everything that stages read and write of this model, as a search pattern on path and query."""
    return rf"^(?!.*prefix=inbox/).*/?(inbox|datasets|reports|models)/{model}/"


def drawn(draw: random.Random, fault: str, key: str, pid: int, n_requests: int) -> Strike:
    """The strike of a fault on a process whose work is `n_requests` requests to the store that match `key`."""
    nth = draw.randint(1, max(1, n_requests))
    if fault == "store fault":
        kind = draw.choice(STORE_FAULTS)
        # Up to four failures in a row are the client's to retry; six are too many for it, and the stage runs again.
        rule = Rule(kind, key=key, nth=nth, times=draw.choice((1, 1, 2, 3, 6)), seconds=draw.uniform(0.2, 1.5))
        return Strike(rule, where=f"{kind} × {rule.times} at request {nth} of about {n_requests}")
    stops = fault.startswith("stop")
    number = signal.SIGSTOP if stops else signal.SIGKILL
    held = fault in ("kill, request in flight", "stop, taken over, resume")
    when = "signal_hold" if held else draw.choice(("signal_before", "signal_after"))
    if stops and when == "signal_before":
        when = "signal_hold"
    rule = Rule(when, key=key, nth=nth, pid=pid, signal=number)
    resume = draw.uniform(0.3, 3.0) if fault == "stop and resume" else None
    return Strike(
        rule, resume, where=f"{number.name} {when.removeprefix('signal_')} request {nth} of about {n_requests}"
    )


def wait_until_fired(world: World, timeout_s: float, over: Callable[[], bool] = lambda: False) -> str | None:
    """The request that met the fault; None when none did in time, or until it was `over`."""
    deadline = time.monotonic() + timeout_s
    while True:
        seen = world.seen()
        if seen["fired"]:
            return str(seen["log"][seen["first"] - 1])
        if time.monotonic() >= deadline or over():
            return None
        time.sleep(0.05)
