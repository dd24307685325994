"""Processes that come back: the harness' stand-in for circus, which starts again what died, once a second at most."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from tests.chaos.warm import is_alive

RESPAWN_S = 1.0


@dataclass
class Service:
    """One process that should run. `process` is the one that was started last."""

    name: str
    start: Callable[[], psutil.Process]
    process: psutil.Process = field(init=False)
    n_starts: int = 0
    started_at: float = 0.0

    def respawn(self) -> None:
        self.process, self.started_at, self.n_starts = self.start(), time.monotonic(), self.n_starts + 1

    @property
    def pid(self) -> int:
        return self.process.pid


class Supervisor:
    """Looks ten times a second at the services and starts the dead ones again. No human act in between."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def add(self, name: str, start: Callable[[], psutil.Process]) -> Service:
        service = Service(name, start)
        service.respawn()
        self.services[name] = service
        return service

    def watch(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for service in self.services.values():
            with suppress(psutil.NoSuchProcess):
                service.process.send_signal(signal.SIGCONT)
                service.process.kill()

    def _watch(self) -> None:
        while not self._stopping.wait(0.1):
            for service in list(self.services.values()):
                waited_s = time.monotonic() - service.started_at
                if waited_s > RESPAWN_S and not is_alive(service.process):
                    service.respawn()


def resume_later(pid: int, after_s: float) -> threading.Timer:
    """SIGCONT after a while, whatever the harness waits for meanwhile."""

    def resume() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    timer = threading.Timer(after_s, resume)
    timer.daemon = True
    timer.start()
    return timer
