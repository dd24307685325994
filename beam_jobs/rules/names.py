"""Names of people and places, found by a named-entity recogniser (spaCy) and replaced by typed placeholders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from lake.errors import TidemillError
from lake.recipe.privacy import Names

# OntoNotes' labels (Weischedel et al. 2013): FAC are buildings and airports, GPE countries and cities, LOC the rest.
_LABELS = {
    "persons": {"PERSON": "<PERSON>"},
    "places": {"GPE": "<PLACE>", "LOC": "<PLACE>", "FAC": "<PLACE>"},
    "organisations": {"ORG": "<ORGANISATION>"},
}
# Components that the recogniser does without.
_UNUSED = ["tagger", "morphologizer", "parser", "senter", "attribute_ruler", "lemmatizer", "textcat"]
# A small model takes identifiers and table cells for names. A name has letters, a capital, and no code in it.
_NAME = re.compile(r"(?=.*[^\W\d_])[^\W\d_][\w'’.,& -]*", re.DOTALL)
_NO_NAME = re.compile(r"[_\d]|\w\.\w{2}|[a-z][A-Z]{2}")
_PLACEHOLDER = re.compile(r"<[A-Z_]+>")

Span = tuple[int, int, str]


class NameRedactor:
    """Replaces the kinds of names that the rules ask for. Raises TidemillError when the model is not installed."""

    def __init__(self, rules: Names) -> None:
        self._labels = {label: kept for kind in rules.kinds for label, kept in _LABELS[kind].items()}
        self._batch_size = rules.batch_size
        self._recognise = _model(rules.model)

    def redact(self, texts: Sequence[str]) -> list[tuple[str, dict[str, int]]]:
        """Each text without its names, and the count of each kind: `person`, `place`, `organisation`."""
        self._recognise.max_length = max(self._recognise.max_length, *map(len, texts)) if texts else 0
        found = self._recognise.pipe(texts, batch_size=self._batch_size)
        return [_replaced(text, list(self._spans(text, read))) for text, read in zip(texts, found, strict=True)]

    def _spans(self, text: str, read: Any) -> Iterator[Span]:
        """`(start, end, placeholder)` of each name, in order."""
        placeholders = {place for match in _PLACEHOLDER.finditer(text) for place in range(*match.span())}
        for entity in read.ents:
            placeholder = self._labels.get(entity.label_)
            name = entity.text.split("\n", 1)[0].rstrip()  # a name that goes over a line end is two lines of a list
            is_name = _NAME.fullmatch(name) and not _NO_NAME.search(name) and name != name.lower()
            if placeholder and is_name and entity.start_char not in placeholders:
                yield entity.start_char, entity.start_char + len(name), placeholder


def _replaced(text: str, spans: Sequence[Span]) -> tuple[str, dict[str, int]]:
    pieces, counts, end = list[str](), dict[str, int](), 0
    for start, stop, placeholder in spans:
        pieces += (text[end:start], placeholder)
        end = stop
        kind = placeholder.strip("<>").lower()
        counts[kind] = counts.get(kind, 0) + 1
    return "".join((*pieces, text[end:])), counts


@cache
def _model(name: str) -> Any:
    """The pipeline, with nothing but the recogniser and what it reads; loaded once in a process."""
    try:
        return import_module("spacy").load(name, exclude=_UNUSED)
    except (ImportError, OSError) as error:
        raise TidemillError(
            "privacy.names",
            expected=f"spaCy and its model {name}",
            got=" ".join(str(error).split())[:200],
            remedy="pip install tidemill[names], on every machine that prepares, or remove privacy.names",
        ) from error
