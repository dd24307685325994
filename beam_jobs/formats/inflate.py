"""Decompression as a stream: gzip, zstd and bz2, a chunk of bounded size at a time, whatever is in it."""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import zstandard

from beam_jobs.formats.extracted import Bomb, BudgetSpent, Unreadable

CHUNK_BYTES = 1 << 18
_SLICE_BYTES = 1 << 14  # what follows a member is copied: many small ones in a large chunk would take quadratic time
# A block of zstd holds at most 128 KiB and needs 4 bytes: 1 KiB of input makes 32 MiB at most (RFC 8878, 3.1.1.2).
_ZSTD_SLICE_BYTES = 1 << 10
_ZSTD_WINDOW_BYTES = 1 << 27  # what the zstd tool accepts without being told to


# Below this a ratio says nothing: a table of blank cells packs a thousand times, and is read in a moment.
UNSUSPECTED_BYTES = 64_000_000


class Budget:
    """How many bytes one object may unpack to, all archives, compressions and dictionaries in it together.

    No more than `max_bytes`, and, beyond UNSUSPECTED_BYTES, no more than `max_ratio` times what was `read` of it.
    """

    def __init__(self, max_bytes: int, max_ratio: float = math.inf, read: Budget | None = None) -> None:
        self.max_bytes, self.spent = max_bytes, 0
        self._max_ratio, self._read = max_ratio, read

    def spend(self, n_bytes: int) -> None:
        """Raises BudgetSpent, and Unreadable `zip_bomb`."""
        self.spent += n_bytes
        if self.spent > self.max_bytes:
            raise BudgetSpent(self.max_bytes)
        if self._read is not None and self.spent > max(UNSUSPECTED_BYTES, self._max_ratio * self._read.spent):
            raise Bomb(self._max_ratio)


def inflated(codec: str, packed: Iterable[bytes], budget: Budget) -> Iterator[bytes]:
    """Unpack `gzip`, `zstd` or `bz2`, all members or frames of it.

    Raises Unreadable `truncated_<codec>`, `bad_<codec>`, or BudgetSpent, after yielding everything that came before.
    """
    new, feed = _DECODERS[codec]
    n_bytes = 0
    try:
        for chunk in _members(packed, new, feed):
            n_bytes += len(chunk)
            budget.spend(len(chunk))
            yield chunk
    except EOFError:
        detail, position = f"ends after {n_bytes} bytes", f"byte:{n_bytes}"
        raise Unreadable(f"truncated_{codec}", detail, position) from None
    except (zlib.error, zstandard.ZstdError, OSError) as error:
        raise Unreadable(f"bad_{codec}", error) from error


class _Decoder(Protocol):
    """What zlib, bz2 and zstandard have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


def _members(
    packed: Iterable[bytes], new: Callable[[], _Decoder], feed: Callable[[_Decoder, bytes], Iterator[bytes]]
) -> Iterator[bytes]:
    """One member after the other; zeros between them are padding, as tape tools leave it. EOFError within one."""
    decoder, within = new(), False
    for piece in (chunk[at : at + _SLICE_BYTES] for chunk in packed for at in range(0, len(chunk), _SLICE_BYTES)):
        waiting = piece
        while waiting and (within or waiting.strip(b"\0")):
            within = True
            yield from feed(decoder, waiting)
            if not decoder.eof:
                break
            waiting, decoder, within = decoder.unused_data, new(), False
    if within:
        raise EOFError


def _gunzip(decoder: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    while packed and not decoder.eof:
        if chunk := decoder.decompress(packed, CHUNK_BYTES):
            yield chunk
        packed = decoder.unconsumed_tail


def _bunzip(decoder: bz2.BZ2Decompressor, packed: bytes) -> Iterator[bytes]:
    while packed or not (decoder.needs_input or decoder.eof):
        if chunk := decoder.decompress(packed, CHUNK_BYTES):
            yield chunk
        packed = b""
        if decoder.eof:
            break


class _Zstd:
    """A frame; `unused_data` is what follows it in the slice and after it."""

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    def feed(self, packed: bytes) -> Iterator[bytes]:
        for start in range(0, len(packed), _ZSTD_SLICE_BYTES):
            end = start + _ZSTD_SLICE_BYTES
            if chunk := self._frame.decompress(packed[start:end]):
                yield chunk
            if self._frame.eof:
                self.unused_data = self._frame.unused_data + packed[end:]
                return


_DECODERS: dict[str, tuple[Callable[[], _Decoder], Callable[..., Iterator[bytes]]]] = {
    "gzip": (lambda: zlib.decompressobj(wbits=31), _gunzip),
    "zstd": (_Zstd, _Zstd.feed),
    "bz2": (bz2.BZ2Decompressor, _bunzip),
}
