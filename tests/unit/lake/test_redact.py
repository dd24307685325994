"""Redaction: what goes, what stays, and that the second look finds nothing afterwards, whatever the text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.redact import KINDS, count_leaks, redact
from lake.redact.shape import Shape, replace

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
        ("github_pat_" + "a1_" * 12, "<KEY>"),
        ("glpat-" + "a1" * 10, "<KEY>"),
        ("xoxb-123456789012-abc", "<KEY>"),
        ("sk_live_" + "a1" * 12, "<KEY>"),
        ("AIza" + "a" * 35, "<KEY>"),
        ("npm_" + "a1" * 18, "<KEY>"),
        ("pypi-" + "AgEI" * 15, "<KEY>"),
        ("hf_" + "aB" * 17, "<KEY>"),
        ("sk-ant-api03-" + "a1" * 20, "<KEY>"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aws_secret_access_key = <KEY>"),
        ("AccountName=x;AccountKey=" + "a1B/" * 21 + "a==;", "AccountName=x;AccountKey=<KEY>;"),
        ("https://bob:S3cr3t!x@db.example.org/x", "https://bob:<KEY>@db.example.org/x"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOY\n-----END PGP PRIVATE KEY BLOCK-----", "<KEY>"),
        ("IBAN DE89 3704 0044 0532 0130 00 AND MORE", "IBAN <IBAN> AND MORE"),
        ("GB82WEST12345698765432, NL91ABNA0417164300", "<IBAN>, <IBAN>"),
        ("FR14 2004 1010 0505 0001 3M02 606.", "<IBAN>."),
        ("card 4111 1111 1111 1111, exp 12/30", "card <CARD>, exp 12/30"),
        ("5555-5555-5555-4444", "<CARD>"),
        ("3782 822463 10005 or 378282246310005", "<CARD> or <CARD>"),
        ("6011111111111117; 3530111333300000", "<CARD>; <CARD>"),
        ("SSN: 536-22-8726.", "SSN: <NATIONAL_ID>."),
        ("NINO AB 12 34 56 C or AB123456C", "NINO <NATIONAL_ID> or <NATIONAL_ID>"),
        ("IdNr. 86 095 742 719", "IdNr. <NATIONAL_ID>"),
        ("NIR 1 85 05 78 006 084 91", "NIR <NATIONAL_ID>"),
        ("NIR 1 85 05 2A 006 084 35", "NIR <NATIONAL_ID>"),
        ("DNI 12345678Z, NIE X1234567L", "DNI <NATIONAL_ID>, NIE <NATIONAL_ID>"),
        ("CF RSSMRA85T10A562S", "CF <NATIONAL_ID>"),
        ("PESEL 44051401359", "PESEL <NATIONAL_ID>"),
        ("from 93.184.216.34 to 185.15.59.224:443", "from <IP> to <IP>:443"),
        ("ping 8.8.8.8, http://1.1.1.1/dns-query", "ping <IP>, http://<IP>/dns-query"),
        ("[2001:4860:4860::8888]:53", "[<IP>]:53"),
    ],
)
def test_personal_data_and_secrets_are_replaced(text: str, expected: str) -> None:
    redacted, counts = redact(text, KINDS)
    assert redacted == expected
    assert counts == {kind: n for kind in KINDS if (n := redacted.count(f"<{kind.upper()}>"))}


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
        "postgresql://user:password@host/db, https://name:${SECRET}@host, tool://AccountSid:AuthToken@From",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8, sha256-4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        "DE89 3704 0044 0532 0130 01, GB82WEST12345698765433, XX82WEST12345698765432",  # check digits, country
        "4111 1111 1111 1112, 0.4111111111111111, 9111111111111111, id_4111111111111111",
        "000-12-3456, 666-12-3456, 900-12-3456, 123-00-4567, 123-45-0000, 1123-45-6789",
        "BG123456A, AB123456E, 12345678A, RSSMRA85T10A562T, 44051401358, 86095742718",
        "10.0.0.1, 127.0.0.1, 192.168.1.1, 172.16.0.9, 203.0.113.9, 169.254.0.1, 224.0.0.1, 256.1.1.1",
        "version 93.184.216.34, package==22.3.4.5, section 4.8.1.2, OID 1.3.101.110, linux-kernel-22.6.23.1.tar",
        "fe80::1, 2001:db8::1, 12:30:45, std::vec, ::1, 2026:11:24",
    ],
)
def test_technical_text_stays(text: str) -> None:
    assert redact(text, KINDS) == (text, {})


def test_only_the_kinds_asked_for_are_replaced() -> None:
    text = "a@example.org +49 30 1234567"
    assert redact(text, ("phone",)) == ("a@example.org <PHONE>", {"phone": 1})
    assert redact(text, ()) == (text, {})
    with pytest.raises(ValueError, match="shoe_size"):
        redact(text, ("shoe_size",))


SEEN_AGAIN = {
    "email": "a@example.org",
    "phone": "+49 30 123 4567",
    "key": "AKIAIOSFODNN7EXAMPLE",
    "iban": " DE89370400440532013000",
    "card": " 4111111111111111",
    "national_id": " 536-22-8726",
    "ip": "http://93.184.216.34/",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_look_finds_what_was_not_replaced(kind: str) -> None:
    text = "\n".join(SEEN_AGAIN.values())
    assert count_leaks(text, (kind,)) == 1
    assert count_leaks(redact(text, (kind,))[0], (kind,)) == 0
    assert count_leaks(text, KINDS) == len(KINDS)
    assert count_leaks(f"{text}\n{PEM}", KINDS) == len(KINDS) + 1
    assert count_leaks(redact(text, KINDS)[0], KINDS) == 0


# Pieces that patterns are made of, so that generated texts come close to matching.
_PIECES = st.one_of(
    st.sampled_from("@.+- ()_\n'\"=aüZ4/"),
    st.sampled_from(
        ["com", "example", "user", "+49", "30", "555", "1234567", "12345678901234567890", "<PHONE>", "<KEY>"]
    ),
    st.sampled_from(["AKIA", "ABCDEFGH12345678", "ghp_", "sk-", "eyJ", "password"]),
    st.sampled_from(["-----BEGIN ", "PRIVATE KEY-----", "-----END ", "RSA "]),
    st.sampled_from(list(SEEN_AGAIN.values())),
    st.sampled_from(["://", ":", "8.8.8.8", "2001:4860::1", "4111", "5555-5555-", "DE89", "536-22-", "AB123456C"]),
)
_TEXTS = st.lists(_PIECES, max_size=30).map("".join)


@given(_TEXTS, st.sets(st.sampled_from(KINDS)))
def test_nothing_leaks_after_redaction(text: str, kinds: set[str]) -> None:
    redacted, _ = redact(text, kinds)
    assert count_leaks(redacted, kinds) == 0


@given(_TEXTS)
def test_redacting_again_changes_nothing(text: str) -> None:
    once, _ = redact(text, KINDS)
    assert redact(once, KINDS) == (once, {})


@given(st.text())
def test_no_text_is_refused(text: str) -> None:
    redact(text, KINDS)


def test_what_a_replacement_uncovers_is_replaced_in_the_same_pass() -> None:
    shape = Shape(re.compile(r"\+(?<!\w\+)\d{8}"), "<PHONE>")
    assert replace(shape, "+12345678" * 1_000) == ("<PHONE>" * 1_000, 1_000)
    assert redact("+4912345678" * 1_000, ("phone",)) == ("<PHONE>" * 1_000, {"phone": 1_000})


# A megabyte each of what patterns begin with and do not end: whoever looks at each place more than a bounded number of
# times does not come back from these.
HOSTILE = (
    "a" * 64 + "@",
    "a@",
    "@a.",
    "a.",
    "1",
    "1 ",
    "1-",
    "1.",
    "1234 ",
    "4111 1111 1111 111",
    "+1",
    "+1 (",
    "(123) ",
    "+4912345678",
    "DE89 ",
    "DE89 3704 0044 0532 0130 0",
    "A1",
    "2001:",
    "2001:4860:4860::8888:",
    "8.8.8.8.",
    "123-45-",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN ",
    "-----BEGIN PRIVATE KEY-----\n" + "A" * 64,
    "sk-",
    "eyJaaaaaaaaaa.",
    "password = '",
    "=          ",
    "://a:b",
    "://" + "a" * 60 + ":",
    "AccountKey=" + "A" * 39,
)


@pytest.mark.parametrize("piece", HOSTILE, ids=lambda piece: piece[:24].strip())
@pytest.mark.timeout(60)
def test_a_hostile_megabyte_is_read_in_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    redacted, _ = redact(text, KINDS)
    assert count_leaks(redacted, KINDS) == 0
