"""A real S3 server for tests: nanio on a free loopback port, its data in a folder of the test's."""

from __future__ import annotations

import ctypes
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from lake.bucket import BucketAddress
from tests.ports import free_ports

ACCESS_KEY_ID = "tests"
SECRET_ACCESS_KEY = "a-secret-of-tests-only"
REGION = "us-east-1"
READY_WITHIN_S = 30.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def nanio(folder: Path, max_file_bytes: int | None = None) -> Iterator[str]:
    """Run nanio with its data in `folder`; gives its URL. It has ended when the block is left.

    With `max_file_bytes`, writing a longer file fails as it does on a full disk.
    """

    def prepare_child() -> None:
        # It ends with this process, should that be killed.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if max_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

    folder.mkdir(parents=True, exist_ok=True)
    port = free_ports(1)[0]
    command = [
        sys.executable, "-m", "nanio", "serve", "--data-dir", str(folder / "data"), "--host", "127.0.0.1",
        "--port", str(port), "--region", REGION, "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    log = folder / "nanio.log"
    with log.open("ab") as file:
        server = subprocess.Popen(
            command,
            env={"NANIO_ACCESS_KEY": ACCESS_KEY_ID, "NANIO_SECRET_KEY": SECRET_ACCESS_KEY},
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


def address_of(url: str, bucket: str) -> BucketAddress:
    """A bucket on a server that `nanio` has started."""
    return BucketAddress(
        endpoint_url=url,
        name=bucket,
        access_key_id=ACCESS_KEY_ID,
        secret_access_key=SECRET_ACCESS_KEY,
        region=REGION,
    )


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            httpx.get(url, timeout=2)
        except httpx.HTTPError:
            time.sleep(0.05)
        else:
            return  # it answers: 403 to an unsigned request is an answer
    raise RuntimeError(f"nanio did not answer at {url} within {READY_WITHIN_S:g} s:\n{log.read_text()[-2000:]}")
