"""Normalise and judge one document: pure functions, each with the reason code that it rejects with."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import ftfy

from beam_jobs.extract import Extracted
from lake.recipe import PrepareRules
from lake.redact import count_leaks, redact

_SPACES = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"\n{3,}")
_WORD = re.compile(r"\w+")
LANGUAGE_SAMPLE_CHARACTERS = 2_000


@dataclass(frozen=True)
class Cleaned:
    """A document after the rules; `reason` is None when it is kept so far."""

    position: str
    given_id: str | None
    text: str
    reason: str | None
    detail: str
    lang: str = ""
    n_words: int = 0
    letters_share: float = 0.0
    repetition: float = 0.0
    n_redacted: int = 0
    pii_leaks: int = 0


def clean(found: Extracted, rules: PrepareRules) -> Cleaned:
    """Normalise, redact, measure, and reject by the first rule that is broken."""
    if found.reason is not None:
        return Cleaned(found.position, found.given_id, "", found.reason, found.detail)
    text, counts = redact(normalise(found.text), rules.redact)
    lang, confidence = detect_language(text)
    measured = Cleaned(
        position=found.position,
        given_id=found.given_id,
        text=text,
        reason=None,
        detail="",
        lang=lang,
        n_words=len(_WORD.findall(text)),
        letters_share=letters_share(text),
        repetition=repetition(text),
        n_redacted=sum(counts.values()),
        pii_leaks=count_leaks(text, rules.redact),
    )
    broken = _broken_rule(measured, confidence, rules)
    return replace(measured, reason=broken[0], detail=broken[1]) if broken else measured


def normalise(text: str) -> str:
    """Repair mojibake, NFC, one kind of line end, no runs of spaces or blank lines, no control characters."""
    fixed = ftfy.fix_text(text, normalization="NFC", unescape_html=False)
    lines = (_SPACES.sub(" ", line).rstrip() for line in fixed.split("\n"))
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def letters_share(text: str) -> float:
    """Letters among visible characters, in [0, 1]. Gopher keeps documents above 0.8 of words with a letter
    (Rae et al. 2021, table A1); ours counts characters, as code and tables are welcome here."""
    visible = [character for character in text if not character.isspace()]
    return sum(character.isalpha() for character in visible) / len(visible) if visible else 0.0


def repetition(text: str) -> float:
    """Share of the text that repeats itself, in [0, 1]: the larger of two of Gopher's measures (Rae et al. 2021,
    table A1): characters in duplicate lines, and words in duplicate 5-word sequences."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    n_characters = sum(map(len, lines)) or 1
    in_lines = sum(len(line) * (n - 1) for line, n in Counter(lines).items()) / n_characters
    words = _WORD.findall(text.lower())
    grams = Counter(zip(*(words[i:] for i in range(5)), strict=False))
    n_grams = sum(grams.values()) or 1
    return max(in_lines, sum(n - 1 for n in grams.values()) / n_grams)


def detect_language(text: str) -> tuple[str, float]:
    """ISO 639-1 code and its probability, from the beginning of the text."""
    code, probability = _identifier().classify(text[:LANGUAGE_SAMPLE_CHARACTERS])
    return str(code), float(probability)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _broken_rule(found: Cleaned, confidence: float, rules: PrepareRules) -> tuple[str, str] | None:
    if len(found.text) < rules.min_characters:
        return "too_short", f"{len(found.text)} characters, at least {rules.min_characters}"
    foreign = rules.languages and found.lang not in rules.languages
    if foreign and confidence >= rules.min_language_confidence:
        return "wrong_language", f"{found.lang} ({confidence:.2f}), allowed {', '.join(rules.languages)}"
    if found.repetition > rules.max_repetition:
        return "repetitive", f"{found.repetition:.2f}, at most {rules.max_repetition}"
    if found.letters_share < rules.min_letters:
        return "too_few_letters", f"{found.letters_share:.2f}, at least {rules.min_letters}"
    return None
