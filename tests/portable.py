"""A real portable Beam runner for tests: Prism, and a pool of Python workers that are processes of their own.

Prism is written in Go. It is built once, into the user's cache, from the versions and checksums that `tests/prism/` pins;
where that cannot be done, its tests are skipped and say why. It speaks what Flink's job server speaks: Beam's Job API to
the submitter and its Fn API to the workers.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import go_programs
from tests.ports import free_ports

ROOT = Path(__file__).parent.parent
BUILT_WITHIN_S = 900.0  # three minutes of two cores when Go has never compiled it
PROGRAM = "github.com/apache/beam/sdks/v2/go/cmd/prism"
READY_WITHIN_S = 60.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def prism(folder: Path) -> Iterator[str]:
    """Run Prism; gives HOST:PORT of its job service. It has ended when the block is left."""
    port = free_ports(1)[0]
    command = [str(prism_program()), "-job_port", str(port), "-serve_http=false", "-log_kind", "text"]
    with _served(command, port, folder / "prism.log"):
        yield f"localhost:{port}"


@contextmanager
def worker_pool(folder: Path) -> Iterator[str]:
    """Run Beam's pool of workers, which starts a Python process for each that a job asks for; gives its HOST:PORT."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    with _served(command, port, folder / "worker-pool.log"):
        yield f"localhost:{port}"


def built_prism() -> Path | str:
    """The program's path, or why there is none."""
    return go_programs.built("prism", "Prism", PROGRAM, BUILT_WITHIN_S)


def prism_program() -> Path:
    """The program, built if it is not in the cache. Skips the test with the reason when that cannot be done."""
    built = built_prism()
    if isinstance(built, str):
        pytest.skip(built)
    return built


@contextmanager
def _served(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """Run a server until the block is left; with the workers' `python` and this checkout on their paths."""
    log.parent.mkdir(parents=True, exist_ok=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    with log.open("ab") as file:
        server = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            preexec_fn=_end_with_parent,  # noqa: PLW1509  # one system call in the child
        )
    try:
        _await_listener(server, port, log)
        yield
    finally:
        server.send_signal(signal.SIGINT)  # the pool ends its workers on this one, and not on SIGTERM
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(timeout=15)


def _await_listener(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("localhost", port), timeout=2).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{log.stem} did not answer within {READY_WITHIN_S:g} s:\n{log.read_text()[-2000:]}")


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
