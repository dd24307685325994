"""Paragraphs that have stood before go; the first one stays, and so does what is too short to count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.rules.repeated_paragraphs import paragraph_hashes, without_paragraphs
from lake.recipe.quality import Paragraphs

RULES = Paragraphs(min_characters=10)
TEXT = "The first paragraph.\n\nShort.\n\nThe second,\nin two lines.\n\n\nthe FIRST   paragraph.\n\nThe last one."


def test_one_hash_a_paragraph_that_counts_in_order() -> None:
    hashes = paragraph_hashes(TEXT, RULES)
    assert len(hashes) == 4
    assert hashes[0] == hashes[2]  # case and spacing do not make another paragraph
    assert len(set(hashes.tolist())) == 3


def test_repeated_paragraphs_go() -> None:
    repeated = np.array([False, False, True, False])
    left, n = without_paragraphs(TEXT, repeated, RULES)
    assert left == "The first paragraph.\n\nShort.\n\nThe second,\nin two lines.\n\n\nThe last one."
    assert n == 1
    assert without_paragraphs(TEXT, np.zeros(4, bool), RULES) == (TEXT, 0)
    assert without_paragraphs(TEXT, np.ones(4, bool), RULES) == ("Short.\n\n", 4)


def test_flags_of_another_text_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 4"):
        without_paragraphs(TEXT, np.zeros(3, bool), RULES)


@given(st.lists(st.text(max_size=12), max_size=8).map("\n\n".join), st.randoms())
def test_what_is_left_are_the_other_paragraphs(text: str, random: np.random.Generator) -> None:
    rules = Paragraphs(min_characters=3)
    hashes = paragraph_hashes(text, rules)
    repeated = np.array([random.random() < 0.5 for _ in hashes], bool)
    left, n = without_paragraphs(text, repeated, rules)
    assert n == repeated.sum()
    assert paragraph_hashes(left, rules).tolist() == hashes[~repeated].tolist()
