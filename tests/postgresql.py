"""A real PostgreSQL server for tests: Debian's binaries, a free loopback port, its data in a folder of its own."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.ports import free_ports

USER = "tidemill"
READY_WITHIN_S = 30.0
MIN_FREE_BYTES = 1_000_000_000
NOT_INSTALLED = "no PostgreSQL in /usr/lib/postgresql/*/bin: apt-get install postgresql"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def binaries() -> Path | None:
    """The folder with the newest `initdb` and `postgres`, or None."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(found, key=lambda folder: float(folder.parent.name), default=None)


class PostgreSQL:
    """One server. Its user has a random password, which `url` bears."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._data, self._log = programs, folder / "data", folder / "log"
        self.port = free_ports(1)[0]
        self.password = secrets.token_hex(8)
        self._server: subprocess.Popen[bytes] | None = None
        # The server refuses to run as root.
        self._as_user: dict[str, Any] = (
            {"user": "postgres", "group": "postgres", "extra_groups": ()} if os.geteuid() == 0 else {}
        )
        if self._as_user:
            shutil.chown(folder, "postgres", "postgres")
        self._initialize(folder / "password")

    def url(self, database: str) -> str:
        """As a user would write it: without a driver."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, template: str = "template0") -> str:
        """A new database, empty or a copy of another one that nobody is connected to. Returns its URL."""
        self.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(database), sql.Identifier(template))
        )
        return self.url(database)

    def drop(self, database: str) -> None:
        """Whoever is still connected to it is thrown out."""
        self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))

    def execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def start(self) -> None:
        """Returns when it takes connections."""
        command = [
            str(self._programs / "postgres"), "-D", str(self._data), "-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}",
            "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "full_page_writes=off",
            "-c", "synchronous_commit=off",
        ]  # fmt: skip
        with self._log.open("ab") as file:
            started: subprocess.Popen[bytes] = subprocess.Popen(
                command,
                cwd=self._data,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # nothing but a system call in the child
                **self._as_user,
            )
        self._server = started
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline and started.poll() is None:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError(f"PostgreSQL did not answer within {READY_WITHIN_S:g} s:\n{self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Fast shutdown: connections are ended. Harmless when it does not run."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            try:
                self._server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._server.send_signal(signal.SIGQUIT)  # immediate: its children end too, which SIGKILL would leave
                self._server.wait(timeout=10)
            self._server = None

    def _initialize(self, password_file: Path) -> None:
        password_file.write_text(self.password)
        if self._as_user:
            shutil.chown(password_file, "postgres")
        command = [
            str(self._programs / "initdb"), "-D", str(self._data), "-U", USER, "--pwfile", str(password_file),
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions",
        ]  # fmt: skip
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, **self._as_user)
        if done.returncode:
            raise RuntimeError(f"initdb: {done.stderr[-2000:]}")


@contextmanager
def postgresql(programs: Path) -> Iterator[PostgreSQL]:
    """A server that runs; it has ended when the block is left, and its data is gone."""
    # Not below pytest's folder: another user cannot enter that. A database takes 8 MB, which a busy disk feels.
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > MIN_FREE_BYTES
    with tempfile.TemporaryDirectory(prefix="tidemill-postgresql-", dir=memory if roomy else None) as folder:
        server = PostgreSQL(programs, Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
