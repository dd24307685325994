"""A real portable Beam runner for tests: Prism, and a pool of Python workers that are processes of their own.

Prism is written in Go. It is built once, into the user's cache, from the versions and checksums that `tests/prism/` pins;
where that cannot be done, its tests are skipped and say why. It speaks what Flink's job server speaks: Beam's Job API to
the submitter and its Fn API to the workers.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_ports

ROOT = Path(__file__).parent.parent
PROGRAM = "github.com/apache/beam/sdks/v2/go/cmd/prism"
READY_WITHIN_S = 60.0
BUILT_WITHIN_S = 900.0  # three minutes of two cores when Go has never compiled it
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


def prism_program() -> Path:
    """The program, built if it is not in the cache. Skips the test with the reason when that cannot be done."""
    built = built_prism()
    if isinstance(built, str):
        pytest.skip(built)
    return built


@functools.cache
def built_prism() -> Path | str:
    pins = ROOT / "tests" / "prism"
    version = hashlib.sha256((pins / "go.sum").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidemill-tests"
    program = cache / f"prism-{version}"
    if program.exists():
        return program
    if shutil.which("go") is None:
        return "Prism cannot be built: no 'go' on the PATH"
    cache.mkdir(parents=True, exist_ok=True)
    partial = cache / f"{program.name}.{os.getpid()}"
    command = ["go", "build", "-mod=readonly", "-buildvcs=false", "-o", str(partial), PROGRAM]
    try:
        subprocess.run(command, cwd=pins, check=True, capture_output=True, text=True, timeout=BUILT_WITHIN_S)
        partial.replace(program)  # two test runs may build at once
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return f"Prism cannot be built: {told[-1] if told else type(error).__name__}"
    return program


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
