"""Ports on loopback that nobody listens on."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack


def free_ports(n: int) -> list[int]:
    """`n` different ports that are free now. Another process may still take one before it is used."""
    with ExitStack() as stack:
        return [stack.enter_context(_bound(0)).getsockname()[1] for _ in range(n)]


def free_port_block(n: int) -> int:
    """The first of `n` free ports in a row, below those that the system lends to outgoing connections.

    A replica's port is chosen long before the replica listens on it, and the tests' own clients would take it.
    """
    for first in range(20_000 + os.getpid() % 10_000, 32_000 - n, n):
        try:
            with ExitStack() as stack:
                for port in range(first, first + n):
                    stack.enter_context(_bound(port))
        except OSError:
            continue
        return first
    raise RuntimeError(f"expected {n} free ports in a row between 20000 and 32000, got none")


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        raise
    return listener
