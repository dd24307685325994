"""Bounded reading: gzip as a stream, with a limit on what comes out, lines with a limit on their length."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 18


class Readable(Protocol):
    """Anything that bytes can be read from: a file, an object in the bucket."""

    def read(self, n_bytes: int, /) -> bytes: ...


class TooLarge(Exception):
    """More bytes than allowed: a bomb, or a file that the recipe's limit is too small for."""


class TruncatedGzip(Exception):
    """The stream ended inside a gzip member. `n_bytes` were unpacked before."""

    def __init__(self, n_bytes: int) -> None:
        super().__init__(n_bytes)
        self.n_bytes = n_bytes


class Inflated:
    """An object's content, unpacked when it is gzip. Never holds more than asked for plus one chunk."""

    def __init__(self, stream: Readable, head: bytes, *, compressed: bool, max_bytes: int) -> None:
        self._stream, self._head, self._compressed, self._max_bytes = stream, head, compressed, max_bytes

    def chunks(self) -> Iterator[bytes]:
        """Unpacked chunks. Raises TooLarge, TruncatedGzip, zlib.error."""
        n_bytes = 0
        for chunk in self._inflated() if self._compressed else self._raw():
            n_bytes += len(chunk)
            if n_bytes > self._max_bytes:
                raise TooLarge
            yield chunk

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def lines(self, max_line_bytes: int) -> Iterator[bytes | None]:
        """Lines without their end; None stands for one longer than `max_line_bytes`, which is skipped unread.

        A line cut off by truncation is not yielded: half a record is none.
        """
        rest, skipping = b"", False
        for chunk in self.chunks():
            *complete, rest = (rest + chunk).split(b"\n")
            for line in complete:
                yield None if skipping or len(line) > max_line_bytes else line
                skipping = False
            if len(rest) > max_line_bytes:
                rest, skipping = b"", True
        if skipping:
            yield None
        elif rest:
            yield rest

    def _raw(self) -> Iterator[bytes]:
        if self._head:
            yield self._head
        while chunk := self._stream.read(_CHUNK_BYTES):
            yield chunk

    def _inflated(self) -> Iterator[bytes]:
        unpacker, n_bytes, inside = zlib.decompressobj(wbits=31), 0, False
        for packed in self._raw():
            waiting = packed
            # Zeros between members are padding, as tape tools leave it.
            while waiting and (inside or waiting.strip(b"\0")):
                inside = True
                chunk = unpacker.decompress(waiting, _CHUNK_BYTES)
                n_bytes += len(chunk)
                if chunk:
                    yield chunk
                waiting = unpacker.unconsumed_tail
                if unpacker.eof:  # another member may follow
                    waiting, unpacker, inside = unpacker.unused_data, zlib.decompressobj(wbits=31), False
        if inside:
            raise TruncatedGzip(n_bytes)
