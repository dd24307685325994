"""The language of a text."""

from __future__ import annotations

from beam_jobs.rules.language import detect_language

ENGLISH = "The registry holds one entry for each server, and a client that looks for one reads the newest entry."
GERMAN = "Das Verzeichnis enthält für jeden Server einen Eintrag, und wer einen sucht, liest den neuesten Eintrag."


def test_languages() -> None:
    assert detect_language(ENGLISH)[0] == "en"
    lang, confidence = detect_language(GERMAN)
    assert lang == "de"
    assert 0.9 < confidence <= 1
