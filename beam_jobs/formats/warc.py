"""Archives of the web (ISO 28500): the pages and plain texts among the responses in them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from beam_jobs.formats.charset import decoded_whole, meta_charset
from beam_jobs.formats.content import Content
from beam_jobs.formats.extracted import Extracted, Unreadable, shorten
from beam_jobs.formats.html import page_document
from beam_jobs.formats.source import Source

_PAGES = ("text/html", "application/xhtml+xml")
_WITH_CONTENT = ("response", "resource", "conversion")
_MAX_HEADER_BYTES = 1_000_000


def read_warc(content: Content, source: Source) -> Iterator[Extracted]:
    """A document or dead letter `record:N` for each response, N among all records. Requests and the like are passed over.

    Raises Unreadable `bad_warc`.
    """
    from warcio.archiveiterator import WARCIterator
    from warcio.exceptions import ArchiveLoadFailed

    feed = _Feed(content)
    records, number = WARCIterator(feed), 0
    # Else it prints what follows a record of wrong length, and addresses of pages: anybody's data.
    records.INC_RECORD = ""
    logging.getLogger("warcio").setLevel(logging.CRITICAL)
    try:
        while True:
            feed.allow(_MAX_HEADER_BYTES)
            number += 1
            record = next(records, None)
            if record is None:
                return
            feed.allow(None)
            if record.rec_type in _WITH_CONTENT:
                yield _document(record, f"record:{number}", source)
            while record.raw_stream.read(1 << 16):
                pass
    except (ArchiveLoadFailed, AttributeError, ValueError) as error:  # the latter two where a header lacks a field
        raise Unreadable("bad_warc", error, f"record:{number}") from error


class _Feed:
    """Bounds what is read for a header, as its parser would gather a line of any length."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._left: int | None = None
        self._n_bytes = 0

    def tell(self) -> int:
        return self._n_bytes

    def allow(self, n_bytes: int | None) -> None:
        self._left = n_bytes

    def read(self, n_bytes: int = -1) -> bytes:
        chunk = self._content.read(n_bytes)
        self._n_bytes += len(chunk)
        if self._left is not None:
            self._left -= len(chunk)
            if self._left < 0:
                raise Unreadable("bad_warc", f"header longer than {_MAX_HEADER_BYTES} bytes")
        return chunk


def _document(record: Any, position: str, source: Source) -> Extracted:
    headers = record.http_headers
    status = headers.get_statuscode() if headers else "200"
    declared = (headers or record.rec_headers).get_header("Content-Type") or ""
    media_type = declared.split(";", 1)[0].strip().lower()
    if record.rec_type == "response" and headers and status != "200":
        return Extracted(position, reason="http_status", detail=shorten(status))
    if media_type not in (*_PAGES, "text/plain"):
        return Extracted(position, reason="unsupported_format", detail=shorten(media_type or "no media type"))
    formats = source.rules.formats
    try:
        body = Content(iter(lambda: record.content_stream().read(1 << 16), b"")).whole(formats.max_page_bytes)
        _, _, charset = declared.partition("charset=")
        named = charset.split(";", 1)[0].strip("\"' ") or None
        if media_type in _PAGES:
            page = decoded_whole(body, named or meta_charset(body), detect=formats.detect_charset)
            return page_document(page, position, source)
        text = decoded_whole(body, named, detect=formats.detect_charset)
    except Unreadable as error:
        return replace(error.letter, position=position)
    if not text.strip():
        return Extracted(position, reason="no_text", detail="an empty text")
    return Extracted(position, text=text)
