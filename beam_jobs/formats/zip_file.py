"""Opening a zip archive that may have been made to do harm: nothing is unpacked before its size is known to be bounded."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from beam_jobs.formats.extracted import Unreadable
from beam_jobs.formats.inflate import CHUNK_BYTES, Budget
from lake.recipe.formats import Formats

_END, _END_BYTES, _MAX_COMMENT_BYTES = b"PK\x05\x06", 22, 65_535
_END64_LOCATOR, _END64_LOCATOR_BYTES = b"PK\x06\x07", 20
_DIRECTORY_BYTES_PER_ENTRY = 1_000  # 46 and a name, and whatever archivers add
# Below this a ratio says nothing: blank lines pack a thousand times.
_UNSUSPECTED_BYTES = 1_000_000
BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error, ValueError, OSError)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the other ones unpack without a bound on their memory
_ENCRYPTED = 0x1


def opened_zip(file: IO[bytes], formats: Formats) -> zipfile.ZipFile:
    """Raises Unreadable `too_many_entries` or `bad_zip`."""
    try:
        n_bytes = _directory_bytes(file)
        if n_bytes <= formats.max_entries * _DIRECTORY_BYTES_PER_ENTRY:
            archive = zipfile.ZipFile(file)
            if len(archive.infolist()) <= formats.max_entries:
                return archive
            n_entries = f"{len(archive.infolist())} files"
        else:
            n_entries = f"{n_bytes} bytes of names"
    except BAD_ZIP as error:
        raise Unreadable("bad_zip", error) from error
    raise Unreadable("too_many_entries", f"{n_entries}, at most {formats.max_entries} files")


def entry_chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, formats: Formats, budget: Budget) -> Iterator[bytes]:
    """The unpacked file in chunks. Raises Unreadable `encrypted`, `unsupported_format`, `zip_bomb`, `bad_zip`."""
    if entry.flag_bits & _ENCRYPTED:
        raise Unreadable("encrypted", "locked by a password")
    if entry.compress_type not in _METHODS:
        raise Unreadable("unsupported_format", f"zip compression method {entry.compress_type}")
    allowed = max(_UNSUSPECTED_BYTES, int(entry.compress_size * formats.max_ratio))
    n_bytes = 0
    try:
        with archive.open(entry) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                n_bytes += len(chunk)
                budget.spend(len(chunk))
                if n_bytes > allowed:
                    raise Unreadable("zip_bomb", f"unpacks to more than {formats.max_ratio:g} times its size")
                yield chunk
    except BAD_ZIP as error:
        raise Unreadable("bad_zip", error) from error


def entry_bytes(archive: zipfile.ZipFile, name: str, formats: Formats, budget: Budget) -> bytes:
    """A file in a book or letter, whole. Raises what `entry_chunks` does, `too_large`, and KeyError without it."""
    held, n_bytes = [], 0
    for chunk in entry_chunks(archive, archive.getinfo(name), formats, budget):
        held.append(chunk)
        n_bytes += len(chunk)
        if n_bytes > formats.max_page_bytes:
            raise Unreadable("too_large", f"{name}: more than {formats.max_page_bytes} bytes")
    return b"".join(held)


def _directory_bytes(file: IO[bytes]) -> int:
    """Size of the central directory as its end record says (APPNOTE 4.3.16, and 4.3.14 for zip64), before it is read."""
    n_bytes = file.seek(0, os.SEEK_END)
    start = max(0, n_bytes - _END_BYTES - _MAX_COMMENT_BYTES)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise zipfile.BadZipFile("no end record: cut off, or no archive")
    size: int = struct.unpack_from("<I", tail, at + 12)[0]
    locator = at - _END64_LOCATOR_BYTES
    if locator >= 0 and tail.startswith(_END64_LOCATOR, locator):
        file.seek(struct.unpack_from("<Q", tail, locator + 8)[0])
        size = max(size if size != 0xFFFFFFFF else 0, struct.unpack_from("<Q", file.read(56), 40)[0])
    file.seek(0)
    return size
