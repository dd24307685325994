"""Ports on loopback that nobody listens on."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def free_ports(n: int) -> list[int]:
    """`n` different ports that are free now. Another process may still take one before it is used."""
    with ExitStack() as stack:
        return [stack.enter_context(_bound(0)).getsockname()[1] for _ in range(n)]


def free_port_block(n: int) -> int:
    """The first of `n` free ports in a row, for servers that count upwards from a first one."""
    for _ in range(1_000):
        first = free_ports(1)[0]
        if first + n > 65_535:
            continue
        try:
            with ExitStack() as stack:
                for port in range(first, first + n):
                    stack.enter_context(_bound(port))
        except OSError:
            continue
        return first
    raise RuntimeError(f"no {n} free ports in a row")


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        raise
    return listener
