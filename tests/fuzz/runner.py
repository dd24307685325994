"""Gives seeds to a worker, watches over its time and its life, and starts another when it is gone."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from tests.fuzz.mutations import case
from tests.fuzz.worker import Outcome

MAX_CPU_S, MAX_ADDED_BYTES = 10.0, 1_000_000_000
_MAX_WALL_S = 120.0  # for what sleeps instead of working, on a machine with other work
_ROOT = Path(__file__).parent.parent.parent


def outcomes(seeds: Iterable[int]) -> Iterator[Outcome]:
    """What came of each seed; `wrong` is set where it crashed, hung or took too much memory."""
    worker = _Worker()
    try:
        for seed in seeds:
            outcome = worker.run(seed)
            if outcome.wrong is None and outcome.added_bytes > MAX_ADDED_BYTES:
                outcome = outcome._replace(wrong=f"took {outcome.added_bytes / 1e6:.0f} MB")
            if outcome.wrong is None and outcome.cpu_s > MAX_CPU_S:
                outcome = outcome._replace(wrong=f"took {outcome.cpu_s:.1f} s")
            yield outcome
            if worker.process.poll() is not None:
                worker = _Worker()
    finally:
        worker.stop()


class _Worker:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # as select() sees the pipe, not what Python has read of it
            cwd=_ROOT,
        )

    def run(self, seed: int) -> Outcome:
        assert self.process.stdin is not None
        self.process.stdin.write(b"%d\n" % seed)
        line = self._line(max_cpu_s=60)
        if line != "start":
            return self._failed(seed, line or f"died with {self.process.wait()} while the input was made")
        line = self._line(max_cpu_s=MAX_CPU_S)
        if line is None:
            return self._failed(seed, f"died with {self.process.wait()}")
        if line == "hung":
            return self._failed(seed, f"hung for more than {MAX_CPU_S:.0f} s")
        return Outcome(**json.loads(line))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _line(self, max_cpu_s: float) -> str | None:
        """The next line; `hung` when it takes too long, after which the process is gone; None when it died."""
        assert self.process.stdout is not None
        used_before, started = self._cpu_s(), time.monotonic()
        while not select.select([self.process.stdout], [], [], 0.2)[0]:
            if self._cpu_s() - used_before > max_cpu_s or time.monotonic() - started > _MAX_WALL_S:
                self.stop()
                return "hung"
        return self.process.stdout.readline().decode().rstrip("\n") or None

    def _cpu_s(self) -> float:
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return float(times.user + times.system)

    def _failed(self, seed: int, wrong: str) -> Outcome:
        return Outcome(seed, case(seed).family, 0, {}, 0.0, 0, wrong)
