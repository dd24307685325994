"""A warm parent whose children begin with everything imported: `python -m tests.chaos.warm MODULE[:FUNCTION]…`.

Importing Beam, Great Expectations and torch takes seconds; a kill point ends a process or two. The children are what
the product runs, in processes of their own: forked, in a new session, killed like any other.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.servers import ROOT

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Warm:
    """The parent, seen from the harness."""

    def __init__(self, modules: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.warm", *modules],
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
            )
        self._answer()  # once the imports are done

    def fork(self, function: str, log: Path, **arguments: Any) -> psutil.Process:
        """Run `module:function` in a new child; its output goes to `log`."""
        assert self._process.stdin is not None
        told = {"function": function, "log": str(log), "arguments": arguments}
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        self._process.stdin.flush()
        return psutil.Process(int(self._answer()))

    def close(self) -> None:
        self._process.kill()  # the children die with it
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the warm parent has ended with status {self._process.wait()}")
        return line.decode().strip()


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _child(told: dict[str, Any]) -> None:
    """Never returns."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(told["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        module, _, name = told["function"].partition(":")
        getattr(importlib.import_module(module), name)(**told["arguments"])
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children, the harness looks at /proc
    for told in sys.argv[1:]:
        module, _, function = told.partition(":")
        imported = importlib.import_module(module)
        if function:
            getattr(imported, function)()
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints is not an answer
    os.write(out, b"ready\n")
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.close(out)
            _child(json.loads(line))
        os.write(out, f"{pid}\n".encode())


if __name__ == "__main__":
    main()
