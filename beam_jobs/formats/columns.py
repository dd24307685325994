"""From a record's columns to its text and id, as the recipe maps them, and the count of the columns that were seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from beam_jobs.formats.extracted import Extracted, shorten
from lake.recipe import PrepareRules
from lake.recipe.formats import template_fields

MAX_NAMES = 1_000
_NAME_CHARACTERS = 100
_TYPES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "list",
    dict: "object",
    type(None): "null",
    bytes: "binary",
}


@dataclass(frozen=True)
class Columns:
    """`parts` of the text are literals and columns in turn; a single column must hold text as it is."""

    parts: tuple[tuple[str, str | None], ...]
    id: str | None
    max_record_bytes: int

    @classmethod
    def of(cls, rules: PrepareRules) -> Columns:
        text = rules.formats.text
        if text is None:
            parts: Sequence[tuple[str, str | None]] = [("", rules.text_field)]
        elif isinstance(text, str):
            parts = template_fields(text)
        else:
            parts = [("\n\n" if number else "", column) for number, column in enumerate(text)]
        return cls(tuple(parts), rules.formats.id, rules.max_record_bytes)

    @cached_property
    def names(self) -> list[str]:
        """The columns that make up the text."""
        return [column for _, column in self.parts if column is not None]

    @cached_property
    def _single(self) -> str | None:
        """The column, if the text is one column as it is."""
        return self.names[0] if len(self.parts) == 1 and self.parts[0][0] == "" else None

    @cached_property
    def _wanted(self) -> str:
        return _either(self.names)

    def wanted(self, present: Sequence[str]) -> list[str]:
        """Those of the present columns that text or id are read from, dots followed to the outermost."""
        paths = self.names + ([self.id] if self.id else [])
        outermost = [path if path in present else path.split(".", 1)[0] for path in paths]
        return [name for name in dict.fromkeys(outermost) if name in present]

    def require(self, present: Sequence[str]) -> str | None:
        """What is wrong with a table of these columns, if none of them holds text."""
        if any(name in present or name.split(".", 1)[0] in present for name in self.names):
            return None
        return f"no column {self._wanted}; found {', '.join(present[:50])}"

    def document(self, record: Any, position: str) -> Extracted:
        """The record's document, or the dead letter `no_text_field` or `record_too_large`."""
        if not isinstance(record, dict):
            detail = f"an object with {self._wanted} expected, found {type(record).__name__}"
            return Extracted(position, reason="no_text_field", detail=detail)
        text = self._text(record)
        if text is None:
            detail = f"text in {self._wanted} expected, found {self._found(record)}"
            return Extracted(position, reason="no_text_field", detail=shorten(detail))
        if len(text) > self.max_record_bytes:
            detail = f"{len(text)} characters, at most {self.max_record_bytes} bytes"
            return Extracted(position, reason="record_too_large", detail=detail)
        given = _at(record, self.id) if self.id else None
        named = isinstance(given, str | int) and not isinstance(given, bool)
        return Extracted(position, text=text, given_id=shorten(given) or None if named else None)

    def _text(self, record: dict[str, Any]) -> str | None:
        if self._single is not None:
            text = _at(record, self._single)
            return text if isinstance(text, str) else None
        values = [_printed(_at(record, column)) if column is not None else None for _, column in self.parts]
        if not any(values):
            return None
        whole = "".join(literal + (value or "") for (literal, _), value in zip(self.parts, values, strict=True))
        return whole.strip()

    def _found(self, record: dict[str, Any]) -> str:
        values = [_at(record, name, _ABSENT) for name in self.names]
        present = [type(value).__name__ for value in values if value is not _ABSENT]
        return ", ".join(present) if present else f"only {', '.join(map(str, list(record)[:10]))}"


def count_columns(seen: Counter[str] | None, record: Any) -> None:
    """Count `name:type` of a record's own columns."""
    if seen is not None and isinstance(record, dict):
        count_types(seen, ((name, _TYPES.get(type(value), "other")) for name, value in record.items()))


def count_types(seen: Counter[str], typed: Iterator[tuple[Any, str]], n_records: int = 1) -> None:
    """At most MAX_NAMES different ones are counted by name, all others together as `…:other`."""
    for name, kind in typed:
        label = f"{name}:{kind}"
        if label not in seen:
            label = f"{shorten(str(name)[:_NAME_CHARACTERS])}:{kind}"
            if label not in seen and len(seen) >= MAX_NAMES:
                label = "…:other"
        seen[label] += n_records


_ABSENT = object()


def _at(record: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """The value of a column, or at the end of a path of names and list places with dots between them."""
    if path in record:
        return record[path]
    value: Any = record
    for name in path.split("."):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and len(name) < 7 and int(name) < len(value):
            value = value[int(name)]
        else:
            return default
    return value


def _printed(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    return str(value) if isinstance(value, str | int | float) else None


def _either(names: Sequence[str]) -> str:
    return " or ".join(map(repr, names))
