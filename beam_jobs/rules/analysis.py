"""What several rule sets ask of one text, found once."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

from beam_jobs.rules.words import words_of


class Analysis:
    """A text with its words and lines; each is found when first asked for."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        """Words and punctuation marks, in order."""
        return words_of(self.text)

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each word stands in the text."""
        return Counter(self.words)

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank."""
        return [line for line in self.text.split("\n") if line and not line.isspace()]


def repeated(pieces: list[str]) -> tuple[int, int]:
    """`(pieces, characters)` of the pieces that have stood in the list before."""
    several = (
        [(piece, n - 1) for piece, n in Counter(pieces).items() if n > 1] if len(set(pieces)) < len(pieces) else []
    )
    return sum(n for _, n in several), sum(len(piece) * n for piece, n in several)
