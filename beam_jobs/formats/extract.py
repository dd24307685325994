"""From an object's bytes to documents and dead letters. Nothing an object holds can raise out of here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from beam_jobs.formats.archive import read_zip
from beam_jobs.formats.columns import Columns
from beam_jobs.formats.content import Content, Readable, chunks_of
from beam_jobs.formats.delimited import read_csv, read_tsv
from beam_jobs.formats.extracted import Extracted, Unreadable
from beam_jobs.formats.html import read_html
from beam_jobs.formats.inflate import Budget, inflated
from beam_jobs.formats.json_records import read_lines, read_value
from beam_jobs.formats.kind import HEAD_BYTES, kind_of, unpacked_name
from beam_jobs.formats.paragraphs import split_document
from beam_jobs.formats.parquet import read_parquet
from beam_jobs.formats.pdf import read_pdf
from beam_jobs.formats.plain import read_text
from beam_jobs.formats.source import Reader, Source
from beam_jobs.formats.warc import read_warc
from beam_jobs.formats.xml import read_xml
from lake.errors import StorageError
from lake.recipe import PrepareRules

_READERS: dict[str, Reader] = {
    "jsonl": read_lines,
    "json": read_value,
    "parquet": read_parquet,
    "csv": read_csv,
    "tsv": read_tsv,
    "text": read_text,
    "html": read_html,
    "xml": read_xml,
    "pdf": read_pdf,
    "warc": read_warc,
    "zip": read_zip,
}


def extract(
    key: str, stream: Readable, rules: PrepareRules, columns: Counter[str] | None = None
) -> Iterator[Extracted]:
    """Yield the documents of one object, and a dead letter for everything in it that cannot be read.

    `columns` is given the count of records by `name:type` of the columns that they have, at most 1,000 different ones.
    Raises StorageError when the stream does: that is the store's fault, not the object's.
    """
    read = Budget(rules.max_object_bytes)
    budget = Budget(rules.max_object_bytes, rules.formats.max_ratio, read)
    source = Source(key.rsplit("/", 1)[-1], rules, Columns.of(rules), columns, budget, _read)
    content = Content(chunks_of(stream, read))
    try:
        for found in _read(content, source):
            yield from split_document(found, rules.max_characters)
    except Unreadable as error:
        yield error.letter


def _read(content: Content, source: Source) -> Iterator[Extracted]:
    """Documents and dead letters of an object, or of a file in one. Raises Unreadable, StorageError, MemoryError alone."""
    try:
        found_any = False
        for found in _read_kind(content, source):
            found_any = True
            yield found
    except (Unreadable, StorageError, MemoryError):
        raise
    except Exception as error:  # parsers of a dozen formats, and whatever they raise on input made to break them
        raise Unreadable("unreadable", f"{type(error).__name__}: {error}") from error
    if not found_any:
        raise Unreadable("no_text", "no document in it")


def _read_kind(content: Content, source: Source) -> Iterator[Extracted]:
    head = content.head(HEAD_BYTES)
    if not head:
        _raise_if_broken(content)
        raise Unreadable("no_text" if source.depth else "empty_object", "0 bytes")
    kind = kind_of(head, source.name)
    if kind in _READERS and kind != "zip":
        yield from _READERS[kind](content, source)
        return
    max_depth = source.rules.formats.max_depth
    if source.depth >= max_depth:
        raise Unreadable("nested_too_deep", f"{kind} in {source.depth} others, at most {max_depth}")
    if kind == "zip":
        yield from _READERS[kind](content, source)
        return
    unpacked = Content(inflated(kind, content.chunks(), source.budget))
    yield from _read_kind(unpacked, replace(source, name=unpacked_name(source.name), depth=source.depth + 1))


def _raise_if_broken(content: Content) -> None:
    """An archive that is cut off before its first byte is told as such, not as empty."""
    for _ in content.chunks():
        pass
