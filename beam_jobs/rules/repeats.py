"""How much of a text repeats itself: the plain rule that every recipe has."""

from __future__ import annotations

from beam_jobs.rules.analysis import repeated
from beam_jobs.simhash import Fingerprint


def repeated_lines(text: str) -> float:
    """Share of characters in lines that have stood in the text before, in [0, 1] (Rae et al. 2021, table A1)."""
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    n_characters = sum(map(len, lines))
    return repeated(lines)[1] / n_characters if n_characters else 0.0


def repeated_runs(hashed: Fingerprint) -> float:
    """Share of the 5-word runs that have stood in the text before, in [0, 1] (the same table, for n-grams)."""
    return 1 - len(hashed.shingles) / hashed.n_runs if hashed.n_runs else 0.0
