"""Words of a list, counted: whole words and phrases, without case, in any script that separates words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from beam_jobs.mix.words import words_of
from beam_jobs.rules.bound import Bound
from lake.errors import TidemillError
from lake.recipe.quality import Toxicity

MEASURES = ("listed_words", "listed_words_share")

Phrase = tuple[str, ...]


def measure(text: str, rules: Toxicity) -> dict[str, float]:
    """Occurrences of the list's words and phrases, and the share of the text's words that they are."""
    words, phrases = words_of(text), _phrases(rules)
    n_found = n_words = 0
    if not phrases.keys().isdisjoint(words):
        for place, word in enumerate(words):
            for phrase in phrases.get(word, ()):
                if tuple(words[place : place + len(phrase)]) == phrase:
                    n_found += 1
                    n_words += len(phrase)
                    break  # the longest that begins here
    return {"listed_words": n_found, "listed_words_share": n_words / len(words) if words else 0.0}


@cache
def bounds(rules: Toxicity) -> tuple[Bound, ...]:
    return (
        Bound("toxic", "listed_words", at_most=rules.max_count),
        Bound("toxic", "listed_words_share", at_most=rules.max_share),
    )


@cache
def _phrases(rules: Toxicity) -> Mapping[str, tuple[Phrase, ...]]:
    """First word → the phrases that begin with it, the longest first. Loaded once in a process.

    Raises TidemillError when the list cannot be read or holds no word.
    """
    listed = list(rules.words)
    if rules.file is not None:
        path = Path(rules.file.removeprefix("file:"))
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise TidemillError(
                f"{path}, the word list of quality.toxicity.file",
                expected="a UTF-8 text file with a word or phrase a line, on every machine that prepares",
                got=f"{type(error).__name__}: {error}",
                remedy="put the list there, or give the words in quality.toxicity.words",
            ) from error
        listed += [line for line in lines if not line.startswith("#")]
    found: dict[str, set[Phrase]] = {}
    for phrase in map(tuple, map(words_of, listed)):
        if phrase:
            found.setdefault(phrase[0], set()).add(phrase)
    if not found:
        raise TidemillError(
            "quality.toxicity", expected="at least one word", got="none", remedy="add words, or remove the section"
        )
    return {first: tuple(sorted(phrases, key=len, reverse=True)) for first, phrases in found.items()}
