"""Gopher's repetition rules (Rae et al. 2021, table A1), as datatrove's GopherRepetitionFilter counts them."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import xxhash
from numpy.typing import NDArray

from beam_jobs.rules.analysis import Analysis, repeated
from beam_jobs.rules.bound import Bound
from lake.recipe.quality import GopherRepetition

TOP_N, DUPLICATE_N = (1, 2, 3, 4), (5, 6, 7, 8, 9, 10)
MEASURES = (
    "duplicate_paragraph_share",
    "duplicate_paragraph_character_share",
    "duplicate_line_share",
    "duplicate_line_character_share",
    *(f"top_{n}_gram_share" for n in TOP_N),
    *(f"duplicate_{n}_gram_share" for n in DUPLICATE_N),
)
_PARAGRAPH_END, _LINE_END = re.compile(r"\n{2,}"), re.compile(r"\n+")
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Numbers = NDArray[np.uint64]
Lengths = NDArray[np.int64]


def measure(analysis: Analysis, rules: GopherRepetition) -> dict[str, float]:
    """The measures of MEASURES that the rules bound. Shares of characters are of the whole text's."""
    text = analysis.text
    n_characters = len(text) or 1
    paragraphs, lines = _PARAGRAPH_END.split(text.strip()), _LINE_END.split(text)
    n_paragraphs, paragraph_characters = repeated(paragraphs)
    n_lines, line_characters = repeated(lines)
    measures = {
        "duplicate_paragraph_share": n_paragraphs / len(paragraphs),
        "duplicate_paragraph_character_share": paragraph_characters / n_characters,
        "duplicate_line_share": n_lines / len(lines),
        "duplicate_line_character_share": line_characters / n_characters,
    }
    numbers, starts = _numbered(analysis)
    for n, _ in rules.top_n_grams:
        measures[f"top_{n}_gram_share"] = _top(numbers, starts, n) / n_characters
    for n, _ in sorted(rules.dup_n_grams):
        measures[f"duplicate_{n}_gram_share"] = _duplicate(numbers, starts, n) / n_characters
    return measures


@cache
def bounds(rules: GopherRepetition) -> tuple[Bound, ...]:
    return (
        Bound("gopher_duplicate_paragraphs", "duplicate_paragraph_share", at_most=rules.dup_para_frac),
        Bound(
            "gopher_duplicate_paragraph_characters",
            "duplicate_paragraph_character_share",
            at_most=rules.dup_para_char_frac,
        ),
        Bound("gopher_duplicate_lines", "duplicate_line_share", at_most=rules.dup_line_frac),
        Bound("gopher_duplicate_line_characters", "duplicate_line_character_share", at_most=rules.dup_line_char_frac),
        *(Bound(f"gopher_top_{n}_gram", f"top_{n}_gram_share", at_most=most) for n, most in rules.top_n_grams),
        *(
            Bound(f"gopher_duplicate_{n}_grams", f"duplicate_{n}_gram_share", at_most=most)
            for n, most in rules.dup_n_grams
        ),
    )


def _numbered(analysis: Analysis) -> tuple[Numbers, Lengths]:
    """A hash a word, uint64 `[n_words]`, and where each would start if they were joined, int64 `[n_words + 1]`."""
    of_word = {word: xxhash.xxh3_64_intdigest(word.encode()) for word in analysis.counts}
    numbers = np.fromiter(map(of_word.__getitem__, analysis.words), np.uint64, len(analysis.words))
    starts = np.zeros(len(analysis.words) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, analysis.words), np.int64, len(analysis.words)), out=starts[1:])
    return numbers, starts


def _grams(numbers: Numbers, n: int) -> Numbers:
    """One hash per run of `n` words, in order."""
    n_grams = max(0, len(numbers) - n + 1)
    combined = numbers[:n_grams]
    for offset in range(1, n):
        combined = combined * _GOLDEN + numbers[offset : offset + n_grams]
    return combined


def _top(numbers: Numbers, starts: Lengths, n: int) -> int:
    """Characters in all occurrences of the most frequent n-gram, its words joined by spaces; of several, the first."""
    grams = _grams(numbers, n)
    if not len(grams):
        return 0
    ordered = np.sort(grams)
    changes = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    run_starts = np.concatenate(([0], changes))
    run_lengths = np.diff(np.concatenate((run_starts, [len(ordered)])))
    most = int(run_lengths.max())
    first = int(np.isin(grams, ordered[run_starts[run_lengths == most]]).argmax()) if most > 1 else 0
    return (int(starts[first + n] - starts[first]) + n - 1) * most


def _duplicate(numbers: Numbers, starts: Lengths, n: int) -> int:
    """Characters in n-grams that have stood before; after one of them the search goes on behind it."""
    grams = _grams(numbers, n)
    ordered = np.sort(grams)
    is_several = np.flatnonzero(ordered[1:] == ordered[:-1])
    if not len(is_several):
        return 0
    # Only n-grams that stand more than once matter, so the walk goes from one of them to the next.
    candidates = np.flatnonzero(np.isin(grams, ordered[is_several])).tolist()
    seen: set[int] = set()
    n_characters = behind = 0
    for place, gram in zip(candidates, grams[candidates].tolist(), strict=True):
        if place < behind:
            continue
        if gram in seen:
            n_characters += int(starts[place + n] - starts[place])
            behind = place + n
        else:
            seen.add(gram)
    return n_characters
