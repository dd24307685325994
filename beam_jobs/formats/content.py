"""Bounded reading: the bytes of an object, or of a file in one, read once from front to back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from beam_jobs.formats.extracted import Unreadable
from beam_jobs.formats.inflate import CHUNK_BYTES, Budget

_IN_MEMORY_BYTES = 8_000_000


class Readable(Protocol):
    """Anything that bytes can be read from: a file, an object in the bucket."""

    def read(self, n_bytes: int, /) -> bytes: ...


def chunks_of(stream: Readable, budget: Budget) -> Iterator[bytes]:
    """The stream in chunks. Raises BudgetSpent."""
    while chunk := stream.read(CHUNK_BYTES):
        budget.spend(len(chunk))
        yield chunk


class Content:
    """Chunks, of which the first bytes can be looked at. Never holds more than asked for plus one chunk."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._waiting = iter(chunks), b""

    def head(self, n_bytes: int) -> bytes:
        """The first bytes, which stay to be read; what cannot be unpacked is told when it is read."""
        held = [self._waiting]
        try:
            while sum(map(len, held)) < n_bytes and (chunk := next(self._chunks, None)) is not None:
                held.append(chunk)
        except Unreadable as error:
            self._chunks = _raising(error)
        self._waiting = b"".join(held)
        return self._waiting[:n_bytes]

    def chunks(self) -> Iterator[bytes]:
        if self._waiting:
            waiting, self._waiting = self._waiting, b""
            yield waiting
        yield from self._chunks

    def read(self, n_bytes: int = -1) -> bytes:
        """Up to `n_bytes` and at least one, or nothing at the end; all that is left when negative."""
        if n_bytes < 0:
            return b"".join(self.chunks())
        while not self._waiting:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._waiting = chunk
        taken, self._waiting = self._waiting[:n_bytes], self._waiting[n_bytes:]
        return taken

    def whole(self, max_bytes: int) -> bytes:
        """Everything. Raises Unreadable `too_large`."""
        held, n_bytes = [], 0
        for chunk in self.chunks():
            held.append(chunk)
            n_bytes += len(chunk)
            if n_bytes > max_bytes:
                raise Unreadable("too_large", f"more than {max_bytes} bytes of what must be read whole")
        return b"".join(held)

    @contextmanager
    def spooled(self, max_bytes: int | None = None) -> Iterator[IO[bytes]]:
        """Everything, in a file without a name, on disk unless small. Raises Unreadable `too_large`."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
            for chunk in self.chunks():
                file.write(chunk)
                if max_bytes is not None and file.tell() > max_bytes:
                    raise Unreadable("too_large", f"more than {max_bytes} bytes of what must be read whole")
            file.seek(0)
            yield file

    def lines(self, max_line_bytes: int) -> Iterator[bytes | None]:
        """Lines without their end; None stands for one longer than `max_line_bytes`, which is skipped unread.

        A line cut off by truncation is not yielded: half a record is none.
        """
        held: list[bytes] = []
        n_held, skipping = 0, False
        for chunk in self.chunks():
            first, *others = chunk.split(b"\n")
            n_held += len(first)
            skipping = skipping or n_held > max_line_bytes
            if not others:
                held = [] if skipping else [*held, first]
                continue
            yield None if skipping else b"".join([*held, first])
            for line in others[:-1]:
                yield line if len(line) <= max_line_bytes else None
            held, n_held = [others[-1]], len(others[-1])
            skipping = n_held > max_line_bytes
        if skipping:
            yield None
        elif n_held:
            yield b"".join(held)


def _raising(error: Unreadable) -> Iterator[bytes]:
    raise error
    yield
