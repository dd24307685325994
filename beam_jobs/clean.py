"""Normalise and judge documents one by one: what each becomes, what was measured, and the rule that it broke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from beam_jobs.formats import Extracted
from beam_jobs.rules import c4
from beam_jobs.rules.characters import letters_share, n_marks
from beam_jobs.rules.language import detect_language
from beam_jobs.rules.names import NameRedactor
from beam_jobs.rules.published import judge
from beam_jobs.rules.repeats import repeated_lines, repeated_runs
from beam_jobs.rules.unicode import normalise
from beam_jobs.simhash import Fingerprint, fingerprint
from lake.recipe import PrepareRules
from lake.recipe.privacy import Names
from lake.redact import KINDS, count_leaks, redact

# Addresses make popular ids. Numbers make more of them: there a checksum that fits is chance.
_OF_IDS = frozenset({"email", "key"})


@dataclass(frozen=True)
class Cleaned:
    """A document after the rules; `reason` is None when it is kept so far. Dead letters have no fingerprint.

    `n_tokens` counts words and punctuation marks, `redacted` what was replaced by kind, and `measures` holds what the
    published rules that are switched on have measured, among `beam_jobs.rules.MEASURES`.
    """

    position: str
    given_id: str | None
    text: str
    reason: str | None
    detail: str
    lang: str = ""
    n_words: int = 0
    n_tokens: int = 0
    letters_share: float = 0.0
    repetition: float = 0.0
    n_redacted: int = 0
    pii_leaks: int = 0
    fingerprint: Fingerprint | None = None
    redacted: Mapping[str, int] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)


def clean(found: Extracted, rules: PrepareRules) -> Cleaned:
    """Normalise, redact, measure, and reject by the first rule that is broken."""
    return clean_batch([found], rules)[0]


def clean_batch(found: Sequence[Extracted], rules: PrepareRules) -> list[Cleaned]:
    """`clean` of each, in order; what a language model does, it does to many at a time.

    Raises TidemillError when the recipe wants a model or a word list that is not there.
    """
    cleaned = [_clean(each, rules) for each in found]
    return _without_names(cleaned, rules.privacy.names, rules) if rules.privacy.names else cleaned


def _clean(found: Extracted, rules: PrepareRules) -> Cleaned:
    given_id = found.given_id or None
    if given_id is not None and redact(given_id, _OF_IDS.intersection(rules.redact))[1]:
        given_id = None  # its place is a name as well; a placeholder would be that of many
    if found.reason is not None:
        # Parsers quote what they stumble over, whatever the recipe redacts in texts.
        return Cleaned(found.position, given_id, "", found.reason, redact(found.detail, KINDS)[0])
    page = c4.Page(normalise(found.text), {})
    if rules.quality.c4:
        page = c4.apply(page.text, rules.quality.c4)
    text, redacted = redact(page.text, rules.redact)
    return _measured(
        Cleaned(found.position, given_id, text, page.reason, page.detail, redacted=redacted, measures=page.measures),
        rules,
    )


def _without_names(cleaned: Sequence[Cleaned], names: Names, rules: PrepareRules) -> list[Cleaned]:
    """Names are looked for in what the other rules keep, as that takes longest; what changes is measured again."""
    redactor = NameRedactor(names)
    left = list(cleaned)
    kept = [place for place, each in enumerate(left) if each.reason is None]
    for place, (text, counts) in zip(kept, redactor.redact([left[place].text for place in kept]), strict=True):
        if counts:
            named = replace(left[place], text=text, redacted={**left[place].redacted, **counts})
            left[place] = _measured(named, rules)
    return left


def _measured(found: Cleaned, rules: PrepareRules) -> Cleaned:
    """The document with everything that is measured of its text, and its verdict unless it has one."""
    text = found.text
    lang, confidence = detect_language(text)
    hashed = fingerprint(text)
    measures, broken = judge(text, rules.quality)
    measured = replace(
        found,
        lang=lang,
        n_words=hashed.n_words,
        n_tokens=hashed.n_words + n_marks(text),
        letters_share=letters_share(text),
        repetition=max(repeated_lines(text), repeated_runs(hashed)),
        n_redacted=sum(found.redacted.values()),
        pii_leaks=count_leaks(text, rules.redact),
        fingerprint=hashed,
        measures={**found.measures, **measures},
    )
    if found.reason is not None:
        return replace(measured, fingerprint=None)
    broken = _broken_rule(measured, confidence, rules) or broken
    return replace(measured, reason=broken[0], detail=broken[1], fingerprint=None) if broken else measured


def _broken_rule(found: Cleaned, confidence: float, rules: PrepareRules) -> tuple[str, str] | None:
    """The rules that every recipe has."""
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
