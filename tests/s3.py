"""Real S3 servers for tests, on free loopback ports, their data in folders of the test's: nanio, and versitygw.

versitygw is written in Go. It is built once, into the user's cache, from the versions and checksums that
`tests/versitygw/` pins; where that cannot be done, its tests are skipped and say why.
"""

from __future__ import annotations

import ctypes
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from lake.bucket import BucketAddress
from tests import go_programs
from tests.ports import free_ports

ACCESS_KEY_ID = "tests"
SECRET_ACCESS_KEY = "a-secret-of-tests-only"
REGION = "us-east-1"
READY_WITHIN_S = 30.0
BUILT_WITHIN_S = 240.0  # 10 s when Go has compiled it before, minutes when it has not
VERSITYGW = "github.com/versity/versitygw/cmd/versitygw"
ROOT = Path(__file__).parent.parent
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def nanio(folder: Path, max_file_bytes: int | None = None) -> Iterator[str]:
    """Run nanio with its data in `folder`; gives its URL. It has ended when the block is left.

    With `max_file_bytes`, writing a longer file fails as it does on a full disk.
    """
    port = free_ports(1)[0]
    command = [
        sys.executable, "-m", "nanio", "serve", "--data-dir", str(folder / "data"), "--host", "127.0.0.1",
        "--port", str(port), "--region", REGION, "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    environment = {"NANIO_ACCESS_KEY": ACCESS_KEY_ID, "NANIO_SECRET_KEY": SECRET_ACCESS_KEY}
    folder.mkdir(parents=True, exist_ok=True)
    with _served(command, environment, port, folder / "nanio.log", max_file_bytes) as url:
        yield url


@contextmanager
def versitygw(folder: Path, event_url: str | None = None) -> Iterator[str]:
    """Run versitygw in the same way; it posts its events to `event_url`, which has to answer already."""
    port = free_ports(1)[0]
    command = [
        str(versitygw_program()), "--port", f"127.0.0.1:{port}", "--region", REGION, "--quiet",
        *(["--event-webhook-url", event_url] if event_url else []), "posix", str(folder / "data"),
    ]  # fmt: skip
    environment = {"ROOT_ACCESS_KEY": ACCESS_KEY_ID, "ROOT_SECRET_KEY": SECRET_ACCESS_KEY}
    (folder / "data").mkdir(parents=True, exist_ok=True)
    with _served(command, environment, port, folder / "versitygw.log") as url:
        yield url


def versitygw_program() -> Path:
    """The program, built if it is not in the cache. Skips the test with the reason when that cannot be done."""
    built = go_programs.built("versitygw", "versitygw", VERSITYGW, BUILT_WITHIN_S)
    if isinstance(built, str):
        pytest.skip(built)
    return built


def address_of(url: str, bucket: str) -> BucketAddress:
    """A bucket on a server that was started here."""
    return BucketAddress(
        endpoint_url=url,
        name=bucket,
        access_key_id=ACCESS_KEY_ID,
        secret_access_key=SECRET_ACCESS_KEY,
        region=REGION,
    )


@contextmanager
def _served(
    command: Sequence[str], environment: dict[str, str], port: int, log: Path, max_file_bytes: int | None = None
) -> Iterator[str]:
    """Run a server until the block is left; gives its URL once it answers."""

    def prepare_child() -> None:
        # It ends with this process, should that be killed.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if max_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

    with log.open("ab") as file:
        server = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            preexec_fn=prepare_child,  # noqa: PLW1509  # nothing but system calls in the child
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(server, url, log)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(timeout=10)


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            httpx.get(url, timeout=2)
        except httpx.HTTPError:
            time.sleep(0.05)
        else:
            return  # it answers: 403 to an unsigned request is an answer
    raise RuntimeError(f"{log.stem} did not answer at {url} within {READY_WITHIN_S:g} s:\n{log.read_text()[-2000:]}")
