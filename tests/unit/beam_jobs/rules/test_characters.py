"""Counting by kind of character: the quick way for ASCII counts as the other one does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.rules.characters import letters_share, n_marks


def test_letters() -> None:
    assert letters_share("abc 123") == pytest.approx(0.5)
    assert letters_share("é日本 _") == pytest.approx(0.75)
    assert letters_share(" \n") == 0
    assert letters_share("") == 0


@given(st.text(st.characters(max_codepoint=127)))
def test_letters_are_counted_alike_in_ascii_and_beyond(text: str) -> None:
    # One more visible letter that is not ASCII takes the other way.
    n_visible = len("".join(text.split()))
    assert letters_share(text + "é") == pytest.approx((letters_share(text) * n_visible + 1) / (n_visible + 1))


@given(st.one_of(st.text(), st.text(st.characters(max_codepoint=127))))
def test_marks_and_words_are_the_tokens(text: str) -> None:
    assert n_marks(text) + len(re.findall(r"\w+", text)) == len(re.findall(r"\w+|[^\w\s]", text))
