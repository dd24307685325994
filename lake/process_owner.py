"""Names of processes that hold something, so that others can tell whether the holder still runs."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def process_owner() -> str:
    """Names this process for the ledger, so that a later one can tell whether it still runs."""
    return f"{socket.gethostname()}:{_boot_id()}:{os.getpid()}:{_start_ticks(os.getpid())}"


def is_gone(owner: str) -> bool:
    """Whether the owner has ended, as far as can be told from here: not of owners on other hosts.

    Told by the kernel's boot id and its ticks since boot, which a clock step does not move as it does a start time.
    """
    host, *rest = owner.rsplit(":", 3)
    if host != socket.gethostname():
        return False
    try:
        boot_id, pid, ticks = rest
        return boot_id != _boot_id() or int(ticks) != _start_ticks(int(pid))
    except (ValueError, OSError):  # the name that an earlier version gave, or no such process
        return True


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]


def _start_ticks(pid: int) -> int:
    """proc(5), /proc/pid/stat: field 22, `starttime`. The second field may hold spaces, and ends with a bracket."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
