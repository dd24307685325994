"""JSON: a record a line, or one value that is an array of records or a record, read as a stream."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import ijson

from beam_jobs.formats.charset import encoding_hint, transcoded
from beam_jobs.formats.columns import count_columns
from beam_jobs.formats.content import Content
from beam_jobs.formats.extracted import Extracted, Unreadable, shorten
from beam_jobs.formats.source import Source

_MAX_DEPTH = 10_000
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STRING_END = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TOKEN = re.compile(_STRING.pattern + rb"|NaN|-?Infinity", re.DOTALL)


def read_lines(content: Content, source: Source) -> Iterator[Extracted]:
    """A record a line. What is wrong with one line is told, and the next one read."""
    content = Content(transcoded(content.chunks(), content.head(4)))
    max_bytes = source.rules.max_record_bytes
    for number, line in enumerate(content.lines(max_bytes), start=1):
        position = f"line:{number}"
        if line is None:
            yield Extracted(position, reason="record_too_large", detail=f"line longer than {max_bytes} bytes")
        elif line.strip():
            yield _of_line(line, position, source)


def read_value(content: Content, source: Source) -> Iterator[Extracted]:
    """An array of records, or records one after the other; lines where the first one is a record of its own."""
    content = Content(transcoded(content.chunks(), content.head(4)))
    if content.head(3) == b"\xef\xbb\xbf":
        content.read(3)
    opening = content.head(65_536).lstrip()
    if not opening.startswith((b"{", b"[")) or (opening.startswith(b"{") and _is_record_a_line(opening)):
        yield from read_lines(content, source)
        return
    path, number = ("item" if opening.startswith(b"[") else ""), 0
    feed = _Feed(_WithoutNaN(content), source.rules.max_record_bytes)
    try:
        for number, record in enumerate(ijson.items(feed, path, use_float=True, multiple_values=True), start=1):
            feed.record_ends()
            count_columns(source.seen_columns, record)
            yield source.columns.document(record, f"row:{number}")
    except Unreadable as error:
        if error.position == "object" and error.reason in ("record_too_large", "bad_json"):
            error.position = f"row:{number + 1}"
        raise
    except UnicodeDecodeError as error:
        raise Unreadable("bad_encoding", f"not UTF-8: {error.reason}", f"row:{number + 1}") from error
    except (ijson.JSONError, ValueError, OverflowError) as error:
        raise Unreadable("bad_json", error, f"row:{number + 1}") from error


class _WithoutNaN:
    """Writes null for NaN and Infinity, which Python's json writes and takes, and strict parsers stop at.

    Holds back no more than the beginning of such a word, or of an escape, at the end of a chunk.
    """

    def __init__(self, content: Content) -> None:
        self._content, self._rest, self._in_string = content, b"", False

    def read(self, n_bytes: int) -> bytes:
        while chunk := self._content.read(n_bytes):
            if done := self._passed(self._rest + chunk):
                return done
        done, self._rest = self._rest, b""
        return done if self._in_string else _TOKEN.sub(_null, done)

    def _passed(self, text: bytes) -> bytes:
        start, end = 0, len(text)
        if self._in_string:
            ended = _STRING_END.match(text)
            self._in_string, start = ended is None, ended.end() if ended else end
        opened = end
        if not self._in_string:
            last = max((found.end() for found in _STRING.finditer(text, start)), default=start)
            opened = text.find(b'"', last)
            self._in_string = opened >= 0
            if opened < 0:
                begun = max(last, len(text.rstrip(b"-NaInfity")))  # perhaps the beginning of a word
                opened = end = begun if end - begun <= len("-Infinity") else end
        if self._in_string:
            end -= (end - len(text.rstrip(b"\\"))) % 2  # half an escape
        plain = text[start:opened]
        if b"N" in plain or b"I" in plain:
            plain = _TOKEN.sub(_null, plain)
        self._rest = text[end:]
        return text[: min(start, end)] + plain + text[opened:end]


def _null(found: re.Match[bytes]) -> bytes:
    return found[0] if found[0].startswith(b'"') else b"null"


class _Feed:
    """Counts what has been read since the last record, as a parser would hold all of it."""

    def __init__(self, content: Content | _WithoutNaN, max_record_bytes: int) -> None:
        self._content, self._max_bytes = content, max_record_bytes
        self._n_bytes = self._depth = 0

    def read(self, n_bytes: int) -> bytes:
        chunk = self._content.read(n_bytes)
        self._n_bytes += len(chunk)
        # Brackets within strings count too, but no record holds this many more opening ones.
        self._depth += chunk.count(b"[") + chunk.count(b"{") - chunk.count(b"]") - chunk.count(b"}")
        if self._n_bytes > self._max_bytes + 2 * len(chunk):
            raise Unreadable("record_too_large", f"record longer than {self._max_bytes} bytes")
        if self._depth > _MAX_DEPTH:
            raise Unreadable("bad_json", f"nested more than {_MAX_DEPTH} deep")
        return chunk

    def record_ends(self) -> None:
        self._n_bytes = self._depth = 0


def _is_record_a_line(opening: bytes) -> bool:
    """Whether the first line is JSON of its own, or so long that nobody writes it over several lines."""
    line, ended, _ = opening.partition(b"\n")
    if not ended:
        return not _holds_several(line)
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        # A broken record a line, rather than the first line of a printed one, or records without a line between them.
        return line.rstrip().endswith(b"}") and not _holds_several(line)
    return True


def _holds_several(line: bytes) -> bool:
    """Whether a record is followed by another one on the same line."""
    try:
        text = line.decode()
        _, end = json.JSONDecoder().raw_decode(text)
        return text[end:].lstrip().startswith("{")
    except (ValueError, RecursionError):
        return False


def _of_line(line: bytes, position: str, source: Source) -> Extracted:
    try:
        record: Any = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Extracted(position, reason="bad_encoding", detail=encoding_hint(line, error.start))
    except (ValueError, RecursionError) as error:
        return Extracted(position, reason="bad_json", detail=shorten(error))
    count_columns(source.seen_columns, record)
    return source.columns.document(record, position)
