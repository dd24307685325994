"""Personal data and secrets by pattern: replaced by typed placeholders, counted, never kept."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A local part, an @, a domain with at least one dot and a top level of two letters or more (RFC 5321 and 6531,
# simplified). Nothing is asked of what stands around it: a rest that stays behind is better than an address that does.
_EMAIL = re.compile(r"[\w.%+-]{1,64}@(?:[\w-]{1,255}\.){1,8}[^\W\d_]{2,}")

# International: a +, no leading 0, 8 to 15 digits (E.164). Not a signed decimal number, which technical text is full of:
# there the + comes before digits, one dot, digits.
_SEPARATOR = r"[ .()-]{0,2}"
_INTERNATIONAL = re.compile(
    rf"\+(?<![\w.]\+)(?!\d+\.\d+(?!{_SEPARATOR}\d))[1-9]\d{{0,2}}(?:{_SEPARATOR}\d){{7,14}}(?!{_SEPARATOR}\d)"
)
# North American, its separators in the right places: bare digit runs, versions, dates and addresses do not match.
_NATIONAL = re.compile(r"[(0-9](?<![\w.+-].)(?:(?<=\()\d{3}\) ?\d{3}[ .-]|(?<=[0-9])\d{2}-\d{3}-)\d{4}(?![\w.-]*\d)")

# The whole PEM block; of one that is cut off, the head and what looks like base64 after it.
_PEM = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"(?:[\s\S]{0,10000}?-----END [A-Z ]*PRIVATE KEY-----|(?:\s*[A-Za-z0-9+/=]{40,})*)"
)
_TOKEN = re.compile(
    r"\b(?:A[KS]IA[A-Z0-9]{16,}"
    r"|sk-[A-Za-z0-9_-]{20,}"
    r"|gh[pousr]_[A-Za-z0-9]{30,}"
    r"|xox[baprs]-[A-Za-z0-9-]{10,}"
    r"|AIza[A-Za-z0-9_-]{35}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"
)
# `api_key = "…"`: the name says that the value is a secret.
_NAMED_SECRET = re.compile(
    r"(?i)\b((?:api|secret|access|auth|private)[_-]?(?:key|token)|password|passwd)"
    r"(\s*[:=]\s*[\"'])(?!<KEY>)([A-Za-z0-9+/_=.-]{16,})([\"'])"
)

# `(marks, pattern, replacement)`. A text without any of the marks cannot match: looking for them is 20 times faster.
_RULES: dict[str, tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...]] = {
    "email": ((("@",), _EMAIL, "<EMAIL>"),),
    "phone": ((("+",), _INTERNATIONAL, "<PHONE>"), ((")", "-"), _NATIONAL, "<PHONE>")),
    "key": (
        (("-----BEGIN ",), _PEM, "<KEY>"),
        (("AKIA", "ASIA", "sk-", "gh", "xox", "AIza", "eyJ"), _TOKEN, "<KEY>"),
        (("'", '"'), _NAMED_SECRET, r"\1\2<KEY>\4"),
    ),
}


def redact(text: str, kinds: Iterable[str]) -> tuple[str, dict[str, int]]:
    """Replace e-mail addresses, phone numbers and keys. Returns the text and the count of each kind found.

    `kinds` are among `email`, `phone`, `key`.
    """
    counts: dict[str, int] = {}
    kinds, found = tuple(kinds), True
    while found:  # what is replaced may have hidden the beginning of what stands next to it
        found = False
        for kind in kinds:
            for marks, pattern, replacement in _RULES[kind]:
                if any(mark in text for mark in marks):
                    text, n = pattern.subn(replacement, text)
                    if n:
                        counts[kind] = counts.get(kind, 0) + n
                        found = True
    return text, counts


# The plain shapes, written independently of the patterns above, so that an error in those is noticed. Whatever these
# find, those must have replaced: the data gate takes no leak at all, and a false one would stop a whole drop.
_LEAKS = {
    "email": (("@",), re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]{1,63}\.[A-Za-z]{2,}")),
    "phone": (("+",), re.compile(r"\+(?<![\w.]\+)[1-9]\d{0,2}[ -]\d{2,4}[ -]\d{3}[ -]?\d{3,4}(?![ .()-]{0,2}\d)")),
    "key": (
        ("-----BEGIN ", "AKIA", "ghp_", "sk-"),
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(?:AKIA[A-Z0-9]{16}|ghp_[A-Za-z0-9]{36}|sk-[A-Za-z0-9]{20})"),
    ),
}


def count_leaks(text: str, kinds: Iterable[str]) -> int:
    """What a second look still finds in a redacted text: the data gate expects 0."""
    looks = (_LEAKS[kind] for kind in kinds)
    return sum(len(pattern.findall(text)) for marks, pattern in looks if any(mark in text for mark in marks))
