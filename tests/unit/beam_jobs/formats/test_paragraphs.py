"""Long texts are cut without losing a character, at the best place there is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.formats.paragraphs import parts_of_text


@given(st.text(alphabet="ab \n", max_size=400), st.integers(1, 60))
def test_nothing_is_lost_and_no_part_is_too_long(text: str, max_characters: int) -> None:
    parts = list(parts_of_text([text], max_characters))
    assert "".join(parts) == text
    assert all(0 < len(part) <= max_characters for part in parts)


def test_the_cut_is_after_a_paragraph_else_after_a_word_else_anywhere() -> None:
    assert list(parts_of_text(["aaa bbb\n\nccc ddd"], 12)) == ["aaa bbb\n\n", "ccc ddd"]
    assert list(parts_of_text(["aaa bbb ccc ddd"], 10)) == ["aaa bbb ", "ccc ddd"]
    assert list(parts_of_text("a" * 25, 10)) == ["a" * 10, "a" * 10, "a" * 5]


def test_an_early_break_does_not_make_a_tiny_part() -> None:
    assert list(parts_of_text("a\n\n" + "b" * 30, 20)) == ["a\n\n" + "b" * 17, "b" * 13]
