"""Redaction: what goes, what stays, and that the second look finds nothing afterwards, whatever the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.redact import count_leaks, redact

KINDS = ("email", "phone", "key")
PEM = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEA7bq+/x12\n" * 3 + "-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jane.doe+lists@mail.example.co.uk now", "write to <EMAIL> now"),
        ("<a@b.io>,c@d.org", "<<EMAIL>>,<EMAIL>"),
        ("müller@straße.de", "<EMAIL>"),
        ("user@host.com_suffix", "<EMAIL>_suffix"),
        ("call +49 30 1234567 today", "call <PHONE> today"),
        ("+1 (555) 123-4567", "<PHONE>"),
        ("(718) 575-1816.", "<PHONE>."),
        ("555-123-4567", "<PHONE>"),
        ("AKIAIOSFODNN7EXAMPLE", "<KEY>"),
        (f"before\n{PEM}\nafter", "before\n<KEY>\nafter"),
        ("-----BEGIN PRIVATE KEY-----\n" + "M" * 64 + "\n" + "A" * 64 + "\nThe rest.", "<KEY>\nThe rest."),
        ("ghp_" + "a1" * 18, "<KEY>"),
        ("sk-proj-" + "x" * 30, "<KEY>"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLXg", "<KEY>"),
        ("api_key = 'abcdefgh12345678'", "api_key = '<KEY>'"),
        ('PASSWORD: "correct-horse-battery"', 'PASSWORD: "<KEY>"'),
    ],
)
def test_personal_data_and_secrets_are_replaced(text: str, expected: str) -> None:
    redacted, counts = redact(text, KINDS)
    assert redacted == expected
    assert sum(counts.values()) == redacted.count("<EMAIL>") + redacted.count("<PHONE>") + redacted.count("<KEY>")


@pytest.mark.parametrize(
    "text",
    [
        "version 3.11.7, 2024-01-02, 192.168.0.1, 1234567890, ISBN 978-3-16-148410-0",
        "[0. +0.70710678j, -0. +1.79769313e+308j]",  # signed decimals, as numpy prints them
        "x = a @ b; @property; git@github",
        "1e+10 and +00:00 and +12 34",
        "password = os.environ['PASSWORD']",
        'a line that says "BEGIN PRIVATE KEY"',
        "sk-learn, ghp_short, AKIA",
    ],
)
def test_technical_text_stays(text: str) -> None:
    assert redact(text, KINDS) == (text, {})


def test_only_the_kinds_asked_for_are_replaced() -> None:
    text = "a@example.org +49 30 1234567"
    assert redact(text, ("phone",)) == ("a@example.org <PHONE>", {"phone": 1})
    assert redact(text, ()) == (text, {})


def test_the_second_look_finds_what_was_not_replaced() -> None:
    text = f"a@example.org, +49 30 123 4567, AKIAIOSFODNN7EXAMPLE\n{PEM}"
    assert count_leaks(text, KINDS) == 4
    assert count_leaks(text, ("email",)) == 1


# Pieces that patterns are made of, so that generated texts come close to matching.
_PIECES = st.one_of(
    st.sampled_from("@.+- ()_\n'\"=aüZ4/"),
    st.sampled_from(
        ["com", "example", "user", "+49", "30", "555", "1234567", "12345678901234567890", "<PHONE>", "<KEY>"]
    ),
    st.sampled_from(["AKIA", "ABCDEFGH12345678", "ghp_", "sk-", "eyJ", "password"]),
    st.sampled_from(["-----BEGIN ", "PRIVATE KEY-----", "-----END ", "RSA "]),
)
_TEXTS = st.lists(_PIECES, max_size=30).map("".join)


@given(_TEXTS, st.sets(st.sampled_from(KINDS)))
def test_nothing_leaks_after_redaction(text: str, kinds: set[str]) -> None:
    redacted, _ = redact(text, [kind for kind in KINDS if kind in kinds])
    assert count_leaks(redacted, kinds) == 0


@given(_TEXTS)
def test_redacting_again_changes_nothing(text: str) -> None:
    once, _ = redact(text, KINDS)
    assert redact(once, KINDS) == (once, {})


@given(st.text())
def test_no_text_is_refused(text: str) -> None:
    redact(text, KINDS)
