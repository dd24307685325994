"""The rules that FineWeb adds (Penedo et al. 2024, section 3.6), as datatrove's FineWebQualityFilter counts them."""

from __future__ import annotations

from functools import cache

from beam_jobs.rules.analysis import Analysis, repeated
from beam_jobs.rules.bound import Bound
from lake.recipe.quality import FineWeb

MEASURES = ("terminal_punctuation_share", "short_line_share", "repeated_line_character_share", "line_ends_per_word")
# What ends a sentence in the scripts in use today: Unicode's Sentence_Terminal, without the ancient scripts.
_TERMINAL = tuple(".!?։؝؞؟۔܀܁܂।॥၊။።፧፨។៕᠃᠉᥄᥅᪨᪩᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇⁈⁉⳹⳺⳻⸮⸼。꓿꘎꘏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡")


def measure(analysis: Analysis, rules: FineWeb) -> dict[str, float]:
    """The measures of MEASURES, all over lines that are not blank."""
    text, lines = analysis.text, analysis.lines
    n_lines, n_characters = len(lines) or 1, len(text) - text.count("\n") or 1
    return {
        "terminal_punctuation_share": sum(line.endswith(_TERMINAL) for line in lines) / n_lines,
        "short_line_share": sum(length <= rules.short_line_length for length in map(len, lines)) / n_lines,
        "repeated_line_character_share": repeated(lines)[1] / n_characters,
        "line_ends_per_word": text.count("\n") / (len(analysis.words) or 1),
    }


@cache
def bounds(rules: FineWeb) -> tuple[Bound, ...]:
    return (
        Bound("fineweb_line_punctuation", "terminal_punctuation_share", at_least=rules.line_punct_thr),
        Bound("fineweb_short_lines", "short_line_share", at_most=rules.short_line_thr),
        Bound("fineweb_duplicate_characters", "repeated_line_character_share", at_most=rules.char_duplicates_ratio),
        Bound("fineweb_line_ends", "line_ends_per_word", at_most=rules.new_line_ratio),
    )
