"""The largest memory of this process, and streams that are generated as they are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def reset_peak() -> int:
    """Forget the largest resident set so far; returns the one of now, in bytes (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """The largest resident set since the last reset, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError("/proc/self/status: expected VmHWM, found none")
    return int(found.group(1)) * 1024


class Generated:
    """A stream of chunks that are made when they are asked for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def read(self, n_bytes: int, /) -> bytes:
        chunk = next(self._chunks, b"")
        if len(chunk) > n_bytes:
            raise ValueError(f"chunk of {len(chunk)} bytes, expected at most {n_bytes}")
        return chunk


def repeated(before: bytes, chunk: bytes, after: bytes, n_bytes: int) -> Generated:
    """`before`, then as many whole chunks as make up `n_bytes`, then `after`."""

    def chunks() -> Iterator[bytes]:
        yield before
        for _ in range(n_bytes // len(chunk)):
            yield chunk
        yield after

    return Generated(filter(None, chunks()))
