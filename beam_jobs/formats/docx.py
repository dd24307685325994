"""Word documents: paragraphs and tables in their order."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import IO, Any

from beam_jobs.formats.extracted import Extracted, Unreadable
from beam_jobs.formats.paragraphs import document_of
from beam_jobs.formats.source import Source
from beam_jobs.formats.zip_file import entry_chunks

_MAX_TABLE_DEPTH = 5


def read_docx(archive: zipfile.ZipFile, file: IO[bytes], source: Source) -> Iterator[Extracted]:
    """One document. Raises Unreadable `too_large`, `zip_bomb`, `encrypted`, `bad_docx`."""
    _require_bounded(archive, source)
    from docx import Document

    file.seek(0)
    try:
        opened = Document(file)
    except Exception as error:  # whatever python-docx meets where it has expected something else
        raise Unreadable("bad_docx", f"{type(error).__name__}: {error}") from error
    yield from document_of(_blocks(opened, 0), source.rules.max_characters)


def _require_bounded(archive: zipfile.ZipFile, source: Source) -> None:
    """Unpack everything once, as python-docx will do without a bound; XML becomes a tree, so less of it is allowed."""
    formats = source.rules.formats
    n_bytes = n_xml_bytes = 0
    for entry in archive.infolist():
        is_xml = entry.filename.lower().endswith((".xml", ".rels"))
        for chunk in entry_chunks(archive, entry, formats, source.budget):
            n_bytes += len(chunk)
            n_xml_bytes += len(chunk) if is_xml else 0
            if n_bytes > formats.max_file_bytes or n_xml_bytes > 4 * formats.max_page_bytes:
                raise Unreadable("too_large", f"{entry.filename}: more than can be read whole")


def _blocks(container: Any, depth: int) -> Iterator[str]:
    """A paragraph, or a row of a table with tabs between its cells, a line; a blank line after each.

    Cells are taken as they stand in the file: `row.cells` repeats one as often as it says that it spans columns.
    """
    from docx.table import _Cell
    from docx.text.paragraph import Paragraph

    for block in container.iter_inner_content():
        if isinstance(block, Paragraph):
            if block.text.strip():
                yield block.text + "\n\n"
        elif depth < _MAX_TABLE_DEPTH:
            for row in block.rows:
                yield "\t".join(_cell_text(_Cell(cell, block), depth) for cell in row._tr.tc_lst) + "\n"
            yield "\n"


def _cell_text(cell: Any, depth: int) -> str:
    return " ".join("".join(_blocks(cell, depth + 1)).split())
