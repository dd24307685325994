"""Memory that a step has freed goes back to the system, so that the next one does not come on top of it."""

from __future__ import annotations

import ctypes
import sys

import pyarrow as pa


def release() -> None:
    """Hand back what this process has freed, and let Arrow do so from now on. Without effect where neither can be done.

    The C library keeps what lies between pieces that are still in use: after a shuffle of small pieces, as much as
    the shuffle. Arrow's default pool, mimalloc, keeps the tables of earlier chunks; jemalloc, which Arrow has on Linux
    and macOS, decays at once.
    """
    if "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # glibc, not musl
        libc.malloc_trim(0)
