"""XML: all its text, or a document for each record element, read without building a tree.

Entities that amplify what they are given are refused by libxml2, files and hosts that they name are never opened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from beam_jobs.formats.columns import count_columns
from beam_jobs.formats.content import Content
from beam_jobs.formats.extracted import Extracted, Unreadable
from beam_jobs.formats.paragraphs import document_of
from beam_jobs.formats.source import Source

_FEED_BYTES = 1 << 16


def read_xml(content: Content, source: Source) -> Iterator[Extracted]:
    """Raises Unreadable `bad_xml` after what came before the mistake."""
    record = source.rules.formats.xml_record
    if record is None:
        yield from document_of(_pieces(content, _Prose()), source.rules.max_characters)
        return
    records = _Records(record, source.rules.max_record_bytes)
    number = 0
    try:
        for number, found in enumerate(_pieces(content, records), start=1):
            count_columns(source.seen_columns, found)
            yield source.columns.document(found, f"row:{number}")
    except Unreadable as error:
        if error.reason == "record_too_large":
            error.position = f"row:{number + 1}"
        raise


class _Prose:
    """Collects text as it is written, with a line end where one element ends and another begins right away."""

    def __init__(self) -> None:
        self.found: deque[str] = deque()
        self._between = False

    def start(self, _tag: str, _attributes: object) -> None:
        if self._between:
            self.found.append("\n")
        self._between = False

    def end(self, _tag: str) -> None:
        if self._between:
            self.found.append("\n")
        self._between = True

    def data(self, text: str) -> None:
        if not text.isspace():
            self._between = False
        self.found.append(text)

    def close(self) -> None: ...


class _Records:
    """Collects a mapping for each element of the name: its attributes, and the text of each child by its name."""

    def __init__(self, name: str, max_characters: int) -> None:
        self.found: deque[dict[str, str]] = deque()
        self._name, self._max = name, max_characters
        self._record: dict[str, list[str]] | None = None
        self._depth = self._n_characters = 0
        self._column = name

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = _local(tag)
        if self._record is not None:
            self._depth += 1
            if self._depth == 1:
                self._column = name
            return
        if name == self._name:
            self._record = {_local(key): [value] for key, value in attributes.items()}
            self._depth, self._n_characters, self._column = 0, 0, name

    def data(self, text: str) -> None:
        if self._record is None:
            return
        self._n_characters += len(text)
        if self._n_characters > self._max:
            raise Unreadable("record_too_large", f"record longer than {self._max} bytes")
        self._record.setdefault(self._column, []).append(text)

    def end(self, _tag: str) -> None:
        if self._record is None:
            return
        if self._depth == 0:
            self.found.append({name: "".join(pieces).strip() for name, pieces in self._record.items()})
            self._record = None
            return
        self._depth -= 1
        if self._depth == 0:
            self._column = self._name

    def close(self) -> None: ...


def _pieces(content: Content, target: _Prose | _Records) -> Iterator[Any]:
    """What the target has found, as the parser is fed."""
    from lxml import etree

    parser = etree.XMLParser(target=target, resolve_entities=False, no_network=True, huge_tree=False)
    try:
        for chunk in content.chunks():
            for start in range(0, len(chunk), _FEED_BYTES):
                parser.feed(chunk[start : start + _FEED_BYTES])
                yield from _taken(target.found)
        parser.close()
    except etree.LxmlError as error:
        yield from _taken(target.found)
        raise Unreadable("bad_xml", error) from error
    except Unreadable:
        yield from _taken(target.found)
        raise
    yield from _taken(target.found)


def _taken(found: deque[Any]) -> Iterator[Any]:
    while found:
        yield found.popleft()


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]
