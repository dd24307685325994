"""ROUGE-L of two answers: against the textbook's dynamic programme, and on cases that a reader can judge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.answer_likeness import MAX_WORDS, common_subsequence, likeness, words_of

WORDS = st.lists(st.sampled_from("abcde"), max_size=40)


def textbook(a: list[str], b: list[str]) -> int:
    """Cormen et al., Introduction to Algorithms, section 15.4."""
    lengths = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, mine in enumerate(a):
        for j, theirs in enumerate(b):
            above_or_left = max(lengths[i][j + 1], lengths[i + 1][j])
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if mine == theirs else above_or_left
    return lengths[-1][-1]


@given(WORDS, WORDS)
def test_the_subsequence_is_as_long_as_the_textbook_s(a: list[str], b: list[str]) -> None:
    assert common_subsequence(a, b) == textbook(a, b)


@given(st.text(max_size=200), st.text(max_size=200))
def test_likeness_is_a_share_and_has_no_direction(one: str, other: str) -> None:
    assert 0 <= likeness(one, other) <= 1
    assert likeness(one, other) == likeness(other, one)
    assert likeness(one, one) == 1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("police killed the gunman", "police kill the gunman", 0.75),  # Lin 2004, section 3.1
        ("police killed the gunman", "the gunman kill police", 0.5),
        ("Call sorted().", "call  SORTED", 1.0),  # case, space and punctuation are no words
        ("列表可以排序", "列表不能排序", 4 / 6),
        ("", "anything", 0.0),
        ("", "  ", 1.0),
        ("👍", "👍\n", 1.0),
        ("👍", "👎", 0.0),
        ("!!!", "word", 0.0),
    ],
)
def test_cases_that_a_reader_can_judge(one: str, other: str, expected: float) -> None:
    assert likeness(one, other) == pytest.approx(expected)


def test_words_of_scripts_without_spaces_are_characters() -> None:
    assert words_of("Don't sort_by 2 lists: 列表をソート, ภาษา") == [
        "don't",
        "sort",
        "by",
        "2",
        "lists",
        *"列表をソート",
        *"ภาษา",
    ]


def test_of_huge_answers_the_first_words_are_compared() -> None:
    huge = "word " * 4_000
    assert likeness(huge, "word " * MAX_WORDS) == 1.0
    assert likeness(huge, "other " * 4_000) == 0.0
