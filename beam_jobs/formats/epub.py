"""EPUB books: the chapters in reading order (EPUB 3.3, 5: container, package document, spine)."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from beam_jobs.formats.extracted import BudgetSpent, Extracted, Unreadable
from beam_jobs.formats.source import Source
from beam_jobs.formats.tree_text import tree_text
from beam_jobs.formats.zip_file import entry_bytes

_CONTAINER = "META-INF/container.xml"


def read_epub(archive: zipfile.ZipFile, source: Source) -> Iterator[Extracted]:
    """A document `chapter:N` for each chapter with text. Raises Unreadable `encrypted`, `bad_epub`."""
    if "META-INF/encryption.xml" in archive.namelist():
        raise Unreadable("encrypted", "a protected book")
    for number, name in enumerate(_spine(archive, source), start=1):
        position = f"chapter:{number}"
        try:
            text = tree_text(_tree(archive, name, source))
        except BudgetSpent:
            raise
        except Unreadable as error:
            yield Extracted(position, reason=error.reason, detail=error.detail)
            continue
        if text:
            yield Extracted(position, text=text)


def _spine(archive: zipfile.ZipFile, source: Source) -> list[str]:
    """Names of the chapters' files, each once."""
    container = _tree(archive, _CONTAINER, source)
    package = next((found.get("full-path") for found in container.iter("{*}rootfile")), None)
    if not package:
        raise Unreadable("bad_epub", "no package document named")
    opened = _tree(archive, package, source)
    hrefs = {item.get("id"): item.get("href") for item in opened.iter("{*}item")}
    chapters = [hrefs.get(item.get("idref")) for item in opened.iter("{*}itemref")]
    folder = posixpath.dirname(package)
    names = [posixpath.normpath(posixpath.join(folder, unquote(href.split("#")[0]))) for href in chapters if href]
    return list(dict.fromkeys(names))


def _tree(archive: zipfile.ZipFile, name: str, source: Source) -> Any:
    """A file of the book as a tree; broken markup is repaired as far as it goes."""
    from lxml import etree

    try:
        content = entry_bytes(archive, name, source.rules.formats, source.budget)
    except KeyError:
        raise Unreadable("bad_epub", f"{name} is missing") from None
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, recover=True)
    try:
        root = etree.fromstring(content, parser)
    except (etree.LxmlError, ValueError) as error:
        raise Unreadable("bad_epub", f"{name}: {error}") from error
    if root is None:
        raise Unreadable("bad_epub", f"{name} is no XML")
    return root
