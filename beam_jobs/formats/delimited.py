"""Tables as text: .csv and .tsv, a row at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain

from beam_jobs.formats.charset import decoded
from beam_jobs.formats.columns import count_columns
from beam_jobs.formats.content import Content
from beam_jobs.formats.extracted import Extracted, Unreadable
from beam_jobs.formats.source import Source

_DELIMITERS = ",;\t|"


def read_csv(content: Content, source: Source) -> Iterator[Extracted]:
    yield from _read(content, source, _DELIMITERS)


def read_tsv(content: Content, source: Source) -> Iterator[Extracted]:
    yield from _read(content, source, "\t")


def _read(content: Content, source: Source, delimiters: str) -> Iterator[Extracted]:
    formats, max_bytes = source.rules.formats, source.rules.max_record_bytes
    # The module knows one limit for the whole process: it is only ever raised, and _Lines holds to our own.
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
    pieces = decoded(content.chunks(), None, detect=formats.detect_charset)
    lines = _Lines(_lines(pieces, max_bytes), max_bytes)
    first = next(lines, None)
    if first is None:
        return
    delimiter = formats.delimiter or _seen_delimiter(first, delimiters, formats.quote, source.columns.names)
    rows = csv.reader(chain([first], lines), delimiter=delimiter, quotechar=formats.quote)
    names = list(formats.columns) if formats.columns else next(rows, [])
    missing = source.columns.require(names)
    if missing:
        raise Unreadable("no_text_field", missing)
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            lines.row_ends()
            if any(row):
                yield _document(names, row, f"row:{number}", source)
    except csv.Error as error:
        raise Unreadable("bad_csv", error, f"row:{number + 1}") from error
    except Unreadable as error:
        if error.reason == "record_too_large":
            error.position = f"row:{number + 1}"
        raise


def _document(names: list[str], row: list[str], position: str, source: Source) -> Extracted:
    if any(row[len(names) :]):
        detail = f"{len(row)} fields, {len(names)} columns"
        return Extracted(position, reason="bad_csv", detail=detail)
    record = dict(zip(names, row, strict=False))
    count_columns(source.seen_columns, record)
    return source.columns.document(record, position)


class _Lines:
    """Lines, with a limit on how much of them one row may take: a quote that never closes would take them all."""

    def __init__(self, lines: Iterator[str], max_characters: int) -> None:
        self._lines, self._max, self._n_characters = lines, max_characters, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._n_characters += len(line)
        if self._n_characters > self._max:
            raise Unreadable("record_too_large", f"row longer than {self._max} bytes: a quote that does not close?")
        return line

    def row_ends(self) -> None:
        self._n_characters = 0


def _lines(pieces: Iterable[str], max_characters: int) -> Iterator[str]:
    """Lines with their ends. Raises Unreadable at one that is too long: where the next row begins is not known."""
    rest = ""
    for piece in pieces:
        lines = io.StringIO(rest + piece, newline="").readlines()
        # The end of a line may be cut in two between pieces, so the last one waits.
        rest = lines.pop() if lines else ""
        yield from lines
        if len(rest) > max_characters:
            raise Unreadable("record_too_large", f"line longer than {max_characters} bytes")
    if rest:
        yield rest


def _seen_delimiter(first: str, delimiters: str, quote: str, wanted: list[str]) -> str:
    """The one that splits the first line into the wanted columns, else into most of them.

    Python's sniffer is not used: its regular expressions take quadratic time on input made for it.
    """

    def merit(delimiter: str) -> tuple[int, int]:
        header = next(csv.reader([first], delimiter=delimiter, quotechar=quote), [])
        return len(set(wanted) & set(header)), len(header)

    return max(delimiters, key=merit)
