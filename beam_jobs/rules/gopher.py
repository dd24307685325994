"""Gopher's quality rules (Rae et al. 2021, section A.1.1), as datatrove's GopherQualityFilter counts them."""

from __future__ import annotations

from functools import cache

from beam_jobs.rules.analysis import Analysis
from beam_jobs.rules.bound import Bound
from beam_jobs.rules.words import kinds
from lake.recipe.quality import Gopher

MEASURES = (
    "plain_words",
    "mean_word_length",
    "hash_ratio",
    "ellipsis_ratio",
    "bullet_share",
    "ellipsis_share",
    "letter_words_share",
    "stop_words",
)
_BULLETS, _ELLIPSES = ("•", "-"), ("...", "…")


def measure(analysis: Analysis, rules: Gopher) -> dict[str, float]:
    """The measures of MEASURES. Words are tokens; `plain_words` and their mean length leave symbols out."""
    text, n_words = analysis.text, len(analysis.words) or 1
    n_plain = n_characters = n_with_letter = 0
    for word, n in analysis.counts.items():
        kind = kinds[word]
        if not kind.is_symbol:
            n_plain += n
            n_characters += n * kind.n_characters
            n_with_letter += n * kind.has_letter
    lines = text.split("\n")  # blank ones count, as in the reference
    return {
        "plain_words": n_plain,
        "mean_word_length": n_characters / n_plain if n_plain else 0.0,
        "hash_ratio": text.count("#") / n_words,
        "ellipsis_ratio": (text.count("...") + text.count("…")) / n_words,
        "bullet_share": sum(line.lstrip().startswith(_BULLETS) for line in lines) / len(lines),
        "ellipsis_share": sum(line.rstrip().endswith(_ELLIPSES) for line in lines) / len(lines),
        "letter_words_share": n_with_letter / n_words,
        "stop_words": sum(word in analysis.counts for word in rules.stop_words),
    }


@cache
def bounds(rules: Gopher) -> tuple[Bound, ...]:
    return (
        Bound("gopher_word_count", "plain_words", rules.min_doc_words, rules.max_doc_words),
        Bound("gopher_mean_word_length", "mean_word_length", rules.min_avg_word_length, rules.max_avg_word_length),
        Bound("gopher_hash_ratio", "hash_ratio", at_most=rules.max_symbol_word_ratio),
        Bound("gopher_ellipsis_ratio", "ellipsis_ratio", at_most=rules.max_symbol_word_ratio),
        Bound("gopher_bullet_lines", "bullet_share", at_most=rules.max_bullet_lines_ratio),
        Bound("gopher_ellipsis_lines", "ellipsis_share", at_most=rules.max_ellipsis_lines_ratio),
        Bound("gopher_letter_words", "letter_words_share", at_least=rules.min_alpha_words_ratio),
        Bound("gopher_stop_words", "stop_words", at_least=rules.min_stop_words),
    )
