"""The rules on one document: each rejects what it names, and normalising is what ftfy would do, only faster."""

from __future__ import annotations

import re

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.clean import (
    Cleaned,
    clean,
    detect_language,
    letters_share,
    normalise,
    repeated_lines,
    repeated_runs,
)
from beam_jobs.formats import Extracted
from beam_jobs.simhash import fingerprint
from lake.recipe import PrepareRules

RULES = PrepareRules()
ENGLISH = (
    "The registry holds one entry for each server. When a server starts, it writes its address and the time, and a "
    "client that looks for one reads the newest entry. Entries older than a minute are removed by whoever sees them. "
)
GERMAN = (
    "Das Verzeichnis enthält für jeden Server einen Eintrag. Wenn ein Server startet, schreibt er seine Adresse und die "
    "Uhrzeit hinein, und wer einen sucht, liest den neuesten Eintrag. Alte Einträge werden nach einer Minute entfernt. "
)


def cleaned(text: str, rules: PrepareRules = RULES) -> Cleaned:
    return clean(Extracted("line:1", text, "a"), rules)


def test_a_good_document_is_kept_with_its_measures() -> None:
    found = cleaned(ENGLISH)
    assert (found.reason, found.lang, found.text) == (None, "en", ENGLISH.strip())
    assert (found.position, found.given_id) == ("line:1", "a")
    assert found.n_words == len(ENGLISH.split())
    assert found.letters_share > 0.9
    assert found.repetition == 0
    assert found.fingerprint is not None
    assert found.fingerprint.exact == fingerprint(ENGLISH).exact


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("Too short.", "too_short", "10 characters, at least 150"),
        (GERMAN, "wrong_language", "de (1.00), allowed en"),
        (ENGLISH + "\n" + "The same line again and again.\n" * 40, "repetitive", "at most 0.5"),
        (ENGLISH[:100] + " one two three four five six" * 40, "repetitive", "at most 0.5"),
        (ENGLISH[:90] + " 1.5, 2.5; [3.5] + {4.5} / 6.5 <= 7.5 |" * 6, "too_few_letters", "at least 0.5"),
    ],
)
def test_a_broken_rule_is_told_with_measure_and_limit(text: str, reason: str, detail: str) -> None:
    found = cleaned(text, PrepareRules(max_repetition=0.99) if reason == "too_few_letters" else RULES)
    assert found.reason == reason
    assert detail in found.detail
    assert found.fingerprint is None


def test_an_id_may_be_personal_too() -> None:
    assert clean(Extracted("line:1", ENGLISH, "jane@example.org"), RULES).given_id == "<EMAIL>"
    assert clean(Extracted("line:1", given_id="jane@example.org", reason="bad"), RULES).given_id == "<EMAIL>"


def test_rules_follow_the_recipe() -> None:
    assert cleaned("Too short.", PrepareRules(min_characters=5, languages=())).reason is None
    assert cleaned(GERMAN, PrepareRules(languages=("en", "de"))).reason is None
    assert cleaned(GERMAN, PrepareRules(languages=())).reason is None


def test_dead_letters_pass_through() -> None:
    found = clean(Extracted("line:3", reason="bad_json", detail="why"), RULES)
    assert (found.position, found.reason, found.detail, found.text) == ("line:3", "bad_json", "why", "")


def test_personal_data_is_gone_before_anything_is_measured() -> None:
    found = cleaned(ENGLISH + "Ask jane@example.org or call +49 30 1234567.")
    assert "<EMAIL> or call <PHONE>." in found.text
    assert (found.n_redacted, found.pii_leaks) == (2, 0)
    assert found.fingerprint is not None
    assert found.fingerprint.exact == fingerprint(found.text).exact
    assert cleaned(ENGLISH + "jane@example.org", PrepareRules(redact=())).n_redacted == 0


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
    ],
)
def test_normalising(text: str, expected: str) -> None:
    assert normalise(text) == expected


def slowly(text: str) -> str:
    """What `normalise` promises, in the plainest way: ftfy on the whole text, then spaces."""
    fixed = ftfy.fix_text(text, normalization="NFC", unescape_html=False)
    lines = (re.sub(r"[^\S\n]+", " ", line).rstrip() for line in fixed.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


_ODD = st.sampled_from("Ã©â€œ\x9d“”ﬁ\u0301\u2028\x85\xa0\r\n\t \x00\x1b[m&lt;aé1日\ud800\ufeff\x0c…")


@given(st.lists(st.one_of(_ODD, st.text(max_size=5), st.just("\n"), st.just("\r\n"))).map("".join))
def test_normalising_is_what_ftfy_does_on_the_whole_text(text: str) -> None:
    assert normalise(text) == slowly(text)


@given(st.text())
def test_normalised_text_can_be_stored_and_has_one_form(text: str) -> None:
    once = normalise(text)
    once.encode()
    assert "\r" not in once
    assert "\n\n\n" not in once
    assert "  " not in once


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


def test_repeated_lines_count_from_the_second_time_on() -> None:
    assert repeated_lines("aaaa\nbbbb\naaaa\naaaa") == pytest.approx(0.5)
    assert repeated_lines("aaaa\n\n\n  aaaa  ") == pytest.approx(0.5)
    assert repeated_lines("a\nb\nc") == 0
    assert repeated_lines("\n\n") == 0


def test_repeated_runs_of_five_words_count_from_the_second_time_on() -> None:
    # 10 words: 6 runs, of which the last is the first one again.
    assert repeated_runs(fingerprint("a b c d e a b c d e")) == pytest.approx(1 / 6)
    assert repeated_runs(fingerprint("a b c d e f g")) == 0
    assert repeated_runs(fingerprint("")) == 0


def test_languages() -> None:
    assert detect_language(ENGLISH)[0] == "en"
    lang, confidence = detect_language(GERMAN)
    assert lang == "de"
    assert 0.9 < confidence <= 1
