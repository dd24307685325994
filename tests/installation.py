"""A whole installation for tests: `tidemill …` as a user runs it, in a home and on ports of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from flows.processes import MARK
from tests.ports import free_port_block, free_ports

TIDEMILL = str(Path(sys.executable).parent / "tidemill")
PORTS = ("S3_PORT", "PREFECT_PORT", "GATEWAY_PORT", "GATEWAY_ADMIN_PORT", "STATUS_PORT")


def environment(home: Path) -> dict[str, str]:
    """What `tidemill` needs to run beside any other installation on this machine."""
    ports = {f"TIDEMILL_{name}": str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "PREFECT_"))}
    return {
        **inherited,
        **ports,
        "TIDEMILL_HOME": str(home),
        "TIDEMILL_REPLICA_PORT_FIRST": str(free_port_block(4)),
        "COLUMNS": "200",
    }


def tidemill(env: dict[str, str], *arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [TIDEMILL, *arguments], env=env, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process that was started for this home and still runs."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@contextmanager
def ending_all(home: Path) -> Iterator[None]:
    """Whatever a failed test leaves of this home ends here."""
    try:
        yield
    finally:
        for process in processes_of(home):
            process.kill()
