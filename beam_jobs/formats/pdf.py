"""PDF: the text of its pages, one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from beam_jobs.formats.content import Content
from beam_jobs.formats.extracted import Extracted, Unreadable, shorten
from beam_jobs.formats.paragraphs import document_of
from beam_jobs.formats.source import Source

# PDFium writes a hyphen at the end of a line as U+FFFE or U+0002; others are left as they are in the file.
_HYPHENATED = re.compile(r"(?<=\w)(?:[\x02\ufffe\u00ad]\r?\n?|-\r?\n(?=[a-z]))")
_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD of fpdfview.h


def read_pdf(content: Content, source: Source) -> Iterator[Extracted]:
    """One document, split where it is long; a page that cannot be read is a dead letter `page:N` of its own.

    Raises Unreadable `encrypted`, `too_large`, `bad_pdf`, and `no_text` for pictures of pages.
    """
    import pypdfium2

    formats = source.rules.formats
    with content.spooled(formats.max_file_bytes) as file:
        try:
            opened = pypdfium2.PdfDocument(file)
        except pypdfium2.PdfiumError as error:
            is_locked = getattr(error, "err_code", None) == _PASSWORD_ERROR
            raise Unreadable("encrypted" if is_locked else "bad_pdf", error) from error
        try:
            if len(opened) > formats.max_pages:
                raise Unreadable("too_large", f"{len(opened)} pages, at most {formats.max_pages}")
            letters: list[Extracted] = []
            pages = _pages(opened, formats.max_page_bytes, letters)
            found = False
            for document in document_of(pages, source.rules.max_characters):
                found = True
                yield document
            yield from letters
            if not found and not letters:
                raise Unreadable("no_text", f"{len(opened)} pages without text")
        finally:
            opened.close()


def _pages(opened: Any, max_characters: int, letters: list[Extracted]) -> Iterator[str]:
    import pypdfium2

    for number in range(len(opened)):
        try:
            text = _page_text(opened, number, max_characters)
        except (pypdfium2.PdfiumError, UnicodeDecodeError) as error:
            letters.append(Extracted(f"page:{number + 1}", reason="bad_pdf", detail=shorten(error)))
            continue
        except Unreadable as error:
            letters.append(Extracted(f"page:{number + 1}", reason=error.reason, detail=error.detail))
            continue
        if text:
            # A sentence goes on over the end of a page; a paragraph that has ended does not.
            yield text + ("\n\n" if text.endswith((".", "!", "?", ":", "。")) else "\n")


def _page_text(opened: Any, number: int, max_characters: int) -> str:
    page = opened[number]
    try:
        text_page = page.get_textpage()
        try:
            n_characters = text_page.count_chars()
            if n_characters > max_characters:
                raise Unreadable("too_large", f"{n_characters} characters on a page, at most {max_characters}")
            text = str(text_page.get_text_bounded())
        finally:
            text_page.close()
    finally:
        page.close()
    return _HYPHENATED.sub("", text).replace("\r\n", "\n").strip()
