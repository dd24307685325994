"""Zip archives: each file in one is read as an object of its own; some are documents in themselves."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import replace

from beam_jobs.formats.content import Content
from beam_jobs.formats.docx import read_docx
from beam_jobs.formats.epub import read_epub
from beam_jobs.formats.extracted import BudgetSpent, Extracted, Unreadable, inside, shorten
from beam_jobs.formats.source import Source
from beam_jobs.formats.zip_file import entry_chunks, opened_zip

_LEFT_BY_SYSTEMS = ("__MACOSX/", ".DS_Store", "Thumbs.db")


def read_zip(content: Content, source: Source) -> Iterator[Extracted]:
    """A book, a letter, or an archive, as the names of the files in it tell."""
    with content.spooled() as file:
        archive = opened_zip(file, source.rules.formats)
        names = {entry.filename for entry in archive.infolist()}
        if "word/document.xml" in names:
            yield from read_docx(archive, file, source)
        elif "META-INF/container.xml" in names and "mimetype" in names:
            yield from read_epub(archive, source)
        elif "[Content_Types].xml" in names or "META-INF/MANIFEST.MF" in names or "META-INF/manifest.xml" in names:
            raise Unreadable("unsupported_format", "an office document or program in a zip archive")
        else:
            yield from _entries(archive, source)


def _entries(archive: zipfile.ZipFile, source: Source) -> Iterator[Extracted]:
    """Nothing is written under the names in the archive: they are labels, wherever they may lead."""
    taken: set[str] = set()
    for entry in archive.infolist():
        if (
            entry.is_dir()
            or entry.filename.startswith(_LEFT_BY_SYSTEMS[0])
            or entry.filename.endswith(_LEFT_BY_SYSTEMS)
        ):
            continue
        label = _unique(f"entry:{shorten(entry.filename)}", taken)
        within = replace(source, name=entry.filename, depth=source.depth + 1)
        try:
            chunks = entry_chunks(archive, entry, source.rules.formats, source.budget)
            for found in source.read(Content(chunks), within):
                yield replace(found, position=inside(label, found.position))
        except BudgetSpent:
            raise
        except Unreadable as error:
            yield replace(error.letter, position=inside(label, error.position))


def _unique(label: str, taken: set[str]) -> str:
    """Archives may hold one name twice, and long names are cut."""
    unique, number = label, 1
    while unique in taken:
        number += 1
        unique = f"{label}#{number}"
    taken.add(unique)
    return unique
