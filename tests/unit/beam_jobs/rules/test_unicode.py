"""Normalising is what ftfy would do on the whole text, without what cannot be seen, and done once it is done for good."""

from __future__ import annotations

import re

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.rules.unicode import normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FranÃ§ois said â€œhiâ€\x9d", 'François said "hi"'),
        ("cafe\u0301", "café"),
        ("a  \t b \n\n\n\n c\t", "a b\n\n c"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("a\x00b\x07c\x1b[31mred\x1b[0m", "abcred"),
        ("no\xa0break", "no break"),
        ("\ufefftext", "text"),
        ("half \ud800 a character", "half \ufffd a character"),
        ("&lt;b&gt; stays", "&lt;b&gt; stays"),
        ("   ", ""),
        ("zero\u200bwidth\u2060 soft\u00adhyphen", "zerowidth softhyphen"),
        ("if admin\u202e\u2066// check\u2069\u2066", "if admin// check"),
        ("not\ufdd0 a\U0001fffe character\uffff", "not a character"),
        ("tagged\U000e0041\U000e007f", "tagged"),
        ("join\u200ded words\u200c", "joined words"),
        ("می\u200cخواهم 👩\u200d💻", "می\u200cخواهم 👩\u200d💻"),
        ("fran\u00c3\u200b\u00a7ois", "françois"),  # what a zero-width space has hidden
    ],
)
def test_normalising(text: str, expected: str) -> None:
    assert normalise(text) == expected


_ODD = st.sampled_from("Ã©â€œ\x9d“”ﬁ\u0301\u2028\x85\xa0\r\n\t \x00\x1b[m&lt;aé1日\ud800\ufeff\x0c…")
_HIDDEN = st.sampled_from("\u200b\u200c\u200d\u202e\u2066\xad\ufdd0\uffff\U000e0041")
_TEXTS = st.lists(st.one_of(_ODD, st.text(max_size=5), st.just("\n"), st.just("\r\n")))
_WITH_HIDDEN = st.lists(st.one_of(_ODD, _HIDDEN, st.text(max_size=5), st.just("\n"))).map("".join)


def slowly(text: str) -> str:
    """What `normalise` promises of a text that hides nothing, in the plainest way: ftfy on all of it, then spaces."""
    fixed = ftfy.fix_text(text, normalization="NFC", unescape_html=False)
    lines = (re.sub(r"[^\S\n]+", " ", line).rstrip() for line in fixed.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def until_settled(text: str) -> str:
    for _ in range(20):
        before, text = text, slowly(text)
        if text == before:
            return text
    raise AssertionError("it does not settle")


@given(_TEXTS.map("".join))
def test_normalising_is_what_ftfy_does_on_the_whole_text(text: str) -> None:
    visible = re.sub(
        "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufff9-\ufffb\U000e0000-\U000e007f]", "", text
    )
    visible = "".join(character for character in visible if ord(character) & 0xFFFE != 0xFFFE)
    visible = re.sub("[\ufdd0-\ufdef]", "", visible)
    assert normalise(visible) == until_settled(visible)


@given(_WITH_HIDDEN)
def test_normalised_text_can_be_stored_and_has_one_form(text: str) -> None:
    once = normalise(text)
    once.encode()
    assert normalise(once) == once
    assert not set(once) & set("\r\t\x00\ufeff\u200b\u202e\u2066\xad\ufdd0\uffff\U000e0041")
    assert "\n\n\n" not in once
    assert "  " not in once
