"""`python -m bentos.envoy_process FILE ENVOY -c BOOTSTRAP …`: Envoy, which SIGHUP replaces by a new one without a gap.

This is Envoy's hot restart: the new process takes the listening sockets over from the old one, which finishes what it
is at and then ends. So a changed bootstrap, or another Envoy, takes effect without a failed request; one that Envoy finds
wrong leaves the old process in place. FILE is for the number by which they find each other. SIGTERM and SIGINT end all. When the newest Envoy ends by itself, so does this process: its supervisor starts it again.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

# Envoy tells clients to close their connections within this time, evenly spread.
DRAIN_TIME_S = 10
# Streams of the old process may last so long; while it lives, there is no further restart.
PARENT_SHUTDOWN_TIME_S = 60
_POLL_S = 0.1
_PR_SET_PDEATHSIG = 1


@dataclass
class EnvoyProcess:
    """The Envoys of one installation: one, or two while the older one drains. `base_id` is a file for the number that
    they find each other by."""

    command: tuple[str, ...]
    base_id: Path
    _running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _epoch: int = -1
    _told: list[int] = field(default_factory=list)

    def run(self) -> int:
        """Until SIGTERM, or the end of the newest Envoy; returns the exit status."""
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)
        self._start()
        while True:
            for told in self._taken():
                if told != signal.SIGHUP:
                    return self._end()
                if len(self._running) > 1:
                    self._told.append(told)  # once the older one has ended
                elif self._is_valid():
                    self._start()
            for epoch, process in list(self._running.items()):
                if process.poll() is None:
                    continue
                del self._running[epoch]
                if epoch == self._epoch:
                    return self._end() or process.returncode or 1
            time.sleep(_POLL_S)

    def _is_valid(self) -> bool:
        """Whether Envoy takes the bootstrap as it is now; it says itself what is wrong."""
        return subprocess.run([*self.command, "--mode", "validate"], check=False).returncode == 0

    def _tell(self, number: int, _frame: FrameType | None) -> None:
        self._told.append(number)

    def _taken(self) -> list[int]:
        told, self._told = self._told, []
        return told

    def _start(self) -> None:
        self._epoch += 1
        if self._epoch == 0:
            found = ["--use-dynamic-base-id", "--base-id-path", str(self.base_id)]
        else:
            found = ["--base-id", self.base_id.read_text().strip(), "--restart-epoch", str(self._epoch)]
        options = [
            "--drain-time-s", str(DRAIN_TIME_S), "--parent-shutdown-time-s", str(PARENT_SHUTDOWN_TIME_S),
            "--skip-hot-restart-parent-stats",  # else some counters go on, those of hosts begin anew, and uptimes add up
        ]  # fmt: skip
        self._running[self._epoch] = subprocess.Popen(
            [*self.command, *found, *options],
            preexec_fn=_end_with_parent,  # noqa: PLW1509  (there is one thread)
        )

    def _end(self) -> int:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.wait()
        return 0


def _end_with_parent() -> None:
    """Should this process be killed, its Envoys must not hold the ports that its successor's need. Linux tells them."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(EnvoyProcess(tuple(sys.argv[2:]), Path(sys.argv[1])).run())
