"""Plain text and Markdown, in parts where it is long."""

from __future__ import annotations

from collections.abc import Iterator

from beam_jobs.formats.charset import decoded
from beam_jobs.formats.content import Content
from beam_jobs.formats.extracted import Extracted, Unreadable
from beam_jobs.formats.paragraphs import document_of
from beam_jobs.formats.source import Source


def read_text(content: Content, source: Source) -> Iterator[Extracted]:
    """Raises Unreadable `bad_encoding`, and `unsupported_format` at bytes that no text has."""
    pieces = decoded(content.chunks(), None, detect=source.rules.formats.detect_charset)
    yield from document_of(_without_binary(pieces), source.rules.max_characters)


def _without_binary(pieces: Iterator[str]) -> Iterator[str]:
    for number, piece in enumerate(pieces):
        if number == 0 and "\0" in piece:
            raise Unreadable("unsupported_format", "binary content")
        yield piece
