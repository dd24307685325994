"""Each rule rejects what it names, in order, and what is kept comes with everything that was measured of it."""

from __future__ import annotations

import re

import pytest

from beam_jobs.clean import Cleaned, clean, clean_batch
from beam_jobs.formats import Extracted
from beam_jobs.rules import MEASURES, fineweb, gopher
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
    assert clean(Extracted("line:1", ENGLISH, "jane@example.org"), RULES).given_id is None
    assert clean(Extracted("line:1", given_id="jane@example.org", reason="bad"), RULES).given_id is None


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


def test_tokens_are_words_and_marks() -> None:
    found = cleaned(ENGLISH)
    assert found.n_tokens == len(re.findall(r"\w+|[^\w\s]", ENGLISH))


def test_what_was_redacted_is_counted_by_kind() -> None:
    found = cleaned(
        ENGLISH + "Ask jane@example.org or joe@example.org, IBAN GB82WEST12345698765432, from 93.184.216.34."
    )
    assert found.redacted == {"email": 2, "iban": 1}
    assert "93.184.216.34" in found.text  # versions look like addresses: not by default
    assert cleaned(ENGLISH + "From 93.184.216.34.", PrepareRules(redact=("ip",))).redacted == {"ip": 1}


def test_nothing_more_is_measured_than_the_recipe_asks_for() -> None:
    assert cleaned(ENGLISH).measures == {}
    found = cleaned(ENGLISH, PrepareRules(quality={"gopher": {"min_doc_words": 20}, "fineweb": True}))
    assert found.reason is None
    assert set(found.measures) == {*gopher.MEASURES, *fineweb.MEASURES}
    assert set(found.measures) < set(MEASURES)


@pytest.mark.parametrize(
    ("text", "quality", "reason", "detail"),
    [
        (ENGLISH, {"gopher": {"min_doc_words": 99}}, "gopher_word_count", "at least 99"),
        ("\n".join(ENGLISH.split(" ")), {"fineweb": True}, "fineweb_line_punctuation", "at least 0.12"),
        (ENGLISH, {"c4": True}, "c4_too_few_sentences", "3, at least 5"),
        (ENGLISH, {"toxicity": {"words": ["client"]}}, "toxic", "1, at most 0"),
        (GERMAN, {"toxicity": {"words": ["server"]}}, "wrong_language", "de"),
    ],
)
def test_a_broken_published_rule_is_told(text: str, quality: object, reason: str, detail: str) -> None:
    found = cleaned(text, PrepareRules.model_validate({"quality": quality}))
    assert found.reason == reason
    assert detail in found.detail
    assert found.fingerprint is None


def test_lines_that_c4_removes_are_gone_and_counted() -> None:
    rules = PrepareRules.model_validate({"quality": {"c4": {"min_num_sentences": 3}}})
    found = cleaned(f"Home | About\n{ENGLISH}\nPlease enable JavaScript to go on.", rules)
    assert (found.reason, found.text) == (None, ENGLISH.strip())
    assert found.measures == {"c4_removed_lines": 2, "sentences": 3}


def test_names_are_replaced_in_what_is_kept() -> None:
    pytest.importorskip("spacy", reason="the extra `names` is not installed")
    rules = PrepareRules.model_validate({"privacy": {"names": True}})
    several = [
        Extracted("line:1", ENGLISH + "It was written by Maria Schneider in Berlin, mail maria@example.org."),
        Extracted("line:2", "Too short for Maria Schneider."),
        Extracted("line:3", reason="bad_json", detail="why"),
        Extracted("line:4", ENGLISH),
    ]
    named, short, dead, plain = clean_batch(several, rules)
    assert named.text == ENGLISH + "It was written by <PERSON> in <PLACE>, mail <EMAIL>."
    assert named.redacted == {"email": 1, "person": 1, "place": 1}
    assert named.n_redacted == 3
    assert named.fingerprint is not None
    assert named.fingerprint.exact == fingerprint(named.text).exact
    assert (short.reason, dead.reason) == ("too_short", "bad_json")
    assert plain.text == clean(several[3], rules).text == ENGLISH.strip()
    assert plain.fingerprint is not None


def test_a_batch_is_its_documents_one_by_one() -> None:
    several = [Extracted(f"line:{n}", text) for n, text in enumerate([ENGLISH, GERMAN, "short", ENGLISH * 9])]
    batch = clean_batch(several, RULES)
    assert [(each.position, each.reason, each.text) for each in batch] == [
        (each.position, each.reason, each.text) for each in (clean(found, RULES) for found in several)
    ]
