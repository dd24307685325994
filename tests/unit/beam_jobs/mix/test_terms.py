"""Words and terms: what counts as one, and the same arrays whatever is counted together."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.mix.terms import Terms, sublinear, terms_of
from beam_jobs.mix.words import words_of


def counted(terms: Terms, number: int) -> dict[int, int]:
    place = slice(terms.starts[number], terms.starts[number + 1])
    return dict(zip(terms.hashes[place].tolist(), terms.counts[place].tolist(), strict=True))


@given(st.text())
def test_words_of_ascii_are_found_as_those_of_other_texts_are(text: str) -> None:
    assert words_of(text) == re.findall(r"\w+", text.casefold())


def test_case_is_folded() -> None:
    assert words_of("STRASSE, Straße; a_b 2nd") == ["strasse", "strasse", "a_b", "2nd"]


@given(st.lists(st.text(alphabet="abÄß1_ ,"), max_size=8))
def test_terms_are_counted_by_document(texts: list[str]) -> None:
    terms = terms_of(texts)
    assert terms.n_documents == len(texts)
    for number, text in enumerate(texts):
        words = [word for word in re.findall(r"\w+", text.casefold()) if 2 <= len(word) <= 30 and word.isalpha()]
        assert counted(terms, number) == {xxhash.xxh3_64_intdigest(w.encode()): n for w, n in Counter(words).items()}


@pytest.mark.parametrize("text", ["", "a b c", "12 3.4 0x1f x2 a_b", "z" * 31, "你好" * 20])
def test_letters_numbers_keys_and_what_is_too_long_are_no_terms(text: str) -> None:
    assert len(terms_of([text]).hashes) == 0


def test_a_hash_is_the_same_in_every_process_and_version() -> None:
    assert counted(terms_of(["Ledger ledger"]), 0) == {xxhash.xxh3_64_intdigest(b"ledger"): 2}


def test_sums_are_by_document() -> None:
    terms = terms_of(["red green red", "", "blue green"])
    assert terms.sums(terms.counts.astype(float)).tolist() == [3, 0, 2]
    assert terms_of([]).sums(np.zeros(0)).tolist() == []


def test_the_twentieth_mention_says_less_than_the_first() -> None:
    assert sublinear(np.array([1, 20])).tolist() == pytest.approx([1, 1 + np.log(20)])
