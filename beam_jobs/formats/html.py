"""HTML: the main text of a page."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

from beam_jobs.formats.charset import decoded_whole, meta_charset
from beam_jobs.formats.content import Content
from beam_jobs.formats.extracted import Extracted
from beam_jobs.formats.source import Source
from beam_jobs.formats.tree_text import html_text

_TAG = re.compile(r"<[a-zA-Z]")


def read_html(content: Content, source: Source) -> Iterator[Extracted]:
    """Raises Unreadable `too_large`, `bad_encoding`."""
    formats = source.rules.formats
    page = content.whole(formats.max_page_bytes)
    yield page_document(decoded_whole(page, meta_charset(page), detect=formats.detect_charset), "object", source)


def page_document(page: str, position: str, source: Source) -> Extracted:
    """The main text of a page, or `no_text`.

    Where it has very many elements all its text is taken: looking for the main text compares them with each other, which
    took 270 s for a page of 35,000 paragraphs and takes 3 s for one of 5,000.
    """
    import trafilatura  # a second of import that other formats do not need

    if sum(1 for _ in _TAG.finditer(page)) > source.rules.formats.max_page_elements:
        text = html_text(page)
    else:
        logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # the dead letter tells what its errors would
        text = trafilatura.extract(page, favor_recall=True, include_comments=False, deduplicate=False)
    if text and text.strip():
        return Extracted(position, text=text)
    return Extracted(position, reason="no_text", detail="no text in the page")
