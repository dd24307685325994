"""C4's rules (Raffel et al. 2020, section 2.2, and its code), as datatrove's C4QualityFilter applies them.

Lines that are no sentence are removed; the page is rejected for what is left, or for what it held.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from beam_jobs.rules.words import kinds, words_of
from lake.recipe.quality import C4

MEASURES = ("c4_removed_lines", "sentences")
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_END_MARKS = (".", "?", "!", '"', "'")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_SENTENCE_ENDS = frozenset(".!?…‼⁇⁈⁉。！？．।؟۔")


class Page(NamedTuple):
    """`text` is what is left; `reason` is set when the page is rejected."""

    text: str
    measures: dict[str, float]
    reason: str | None = None
    detail: str = ""


def apply(text: str, rules: C4) -> Page:
    """Remove the lines that C4 removes, and judge the page."""
    kept: list[str] = []
    n_lines = n_sentences = 0
    for raw in text.split("\n"):
        if not raw or raw.isspace():
            continue
        n_lines += 1
        line = _CITATION.sub("", raw.strip()) if rules.remove_citations else raw.strip()
        if not _is_prose(line, raw.split(), rules):
            continue
        lowered = line.lower()
        if rules.filter_lorem_ipsum and "lorem ipsum" in lowered:
            return Page(text, {}, "c4_lorem_ipsum", "the page says lorem ipsum")
        if rules.filter_javascript and "javascript" in lowered:
            continue
        if rules.filter_curly_bracket and "{" in line:
            return Page(text, {}, "c4_curly_bracket", "the page has a {")
        if rules.filter_policy and any(phrase in lowered for phrase in _POLICY):
            continue
        n_sentences += n_sentences_of(line)
        kept.append(line)
    measures: dict[str, float] = {"c4_removed_lines": n_lines - len(kept), "sentences": n_sentences}
    left = "\n".join(kept).strip()
    if n_sentences < rules.min_num_sentences:
        return Page(left, measures, "c4_too_few_sentences", f"{n_sentences}, at least {rules.min_num_sentences}")
    return Page(left, measures)


def _is_prose(line: str, words: list[str], rules: C4) -> bool:
    """Whether the line ends as a sentence does and has words enough; `words` are counted before citations go."""
    if len(words) < rules.min_words_per_line or max(map(len, words)) > rules.max_word_length:
        return False
    return not rules.filter_no_terminal_punct or (line.endswith(_END_MARKS) and not line.endswith("..."))


def n_sentences_of(line: str) -> int:
    """Sentences by spaCy's sentencizer: one ends at a mark, and at the marks and closing quotes that follow it."""
    n, has_ended = 1, False
    for word in words_of(line):
        if word in _SENTENCE_ENDS:
            has_ended = True
        elif has_ended and not kinds[word].is_punctuation:
            n, has_ended = n + 1, False
    return n
