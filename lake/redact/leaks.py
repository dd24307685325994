"""A second look at redacted text: plain shapes, written independently of the patterns that redact.

An error in those is noticed here. Whatever these find, those must have replaced: the data gate takes no leak at all,
and a false one would stop a whole drop. So they are narrower, and never look for more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import reduce

_EMAIL = re.compile(r"@(?<=[A-Za-z0-9._%+-]@)[A-Za-z0-9-]{1,63}\.[A-Za-z]{2,}")
_PHONE = re.compile(r"\+(?<![\w.]\+)[1-9]\d{0,2}[ -]\d{2,4}[ -]\d{3}[ -]?\d{3,4}(?![ .()-]{0,2}\d)")
_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
    r"|\b(?:AKIA[A-Z0-9]{16}|gh[pos]_[A-Za-z0-9]{36}|sk-[A-Za-z0-9]{20}|glpat-[\w-]{20}|xoxb-[0-9-]{12}|hf_[A-Za-z0-9]{34})"
    r"|\b[rs]k_live_[A-Za-z0-9]{24}|\bgithub_pat_\w{40}|\bnpm_[A-Za-z0-9]{36}"
)
_HOST = re.compile(r"://(\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3})(?=[:/\s])", re.ASCII)
# One pass for what begins with a digit or a country: its kind is the group that it matches.
_NUMBER = re.compile(
    r"[1-7DFGN](?<=[\s:;].)"
    r"(?:(?P<card>(?<=[45])(?:\d{15}|\d{3}-\d{4}-\d{4}-\d{4}))"
    r"|(?P<national_id>(?<=[1-57])\d\d-[1-9]\d-\d{3}[1-9])"
    r"|(?P<iban>(?<=D)E\d{20}|(?<=F)R\d{12}[A-Z0-9]{11}\d\d|(?<=G)B\d\d[A-Z]{4}\d{14}|(?<=N)L\d\d[A-Z]{4}\d{10}))"
    r"(?=[\s;]|$)",
    re.ASCII,
)


def _is_routed(address: str) -> bool:
    """Public by the blocks that are not (RFC 6890 and what IANA has added since), told without asking for each."""
    first, second, third, _ = parts = [int(part) for part in address.split(".")]
    if any(len(part) > 1 and part[0] == "0" for part in address.split(".")) or max(parts) > 255:
        return False
    return 11 <= first < 224 and first not in (100, 127, 169, 172, 192, 198, 203) and second + third > 0


def _pays(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed([int(each) for each in digits if each.isdigit()])):
        total += digit if place % 2 == 0 else digit * 2 - 9 * (digit > 4)
    issued = digits[0] == "4" or digits[1] in "12345"
    return total % 10 == 0 and issued and len(set(digits) - {"-"}) > 1


def _is_account(code: str) -> bool:
    rest = reduce(
        lambda rest, each: (rest * (10 if each.isdigit() else 100) + int(each, 36)) % 97, code[4:] + code[:4], 0
    )
    return rest == 1


_ACCEPTS: dict[str, Callable[[str], bool]] = {"card": _pays, "iban": _is_account, "national_id": bool}
# `(marks, pattern)`; a text without any of the marks has none.
_LEAKS: dict[str, tuple[tuple[str, ...], re.Pattern[str]]] = {
    "key": (
        (
            "-----BEGIN ",
            "AKIA",
            "ghp_",
            "gho_",
            "ghs_",
            "sk-",
            "glpat-",
            "xoxb-",
            "hf_",
            "k_live_",
            "github_pat_",
            "npm_",
        ),
        _KEY,
    ),
    "email": (("@",), _EMAIL),
    "phone": (("+",), _PHONE),
}


def count_leaks(text: str, kinds: Iterable[str]) -> int:
    """What a second look still finds in a redacted text: the data gate expects 0."""
    wanted = set(kinds)
    looks = (_LEAKS[kind] for kind in wanted & _LEAKS.keys())
    n = sum(len(pattern.findall(text)) for marks, pattern in looks if any(mark in text for mark in marks))
    if "ip" in wanted and "://" in text:
        n += sum(map(_is_routed, _HOST.findall(text)))
    if not wanted.isdisjoint(_ACCEPTS):
        numbers = ((str(match.lastgroup), match[0]) for match in _NUMBER.finditer(text))
        n += sum(kind in wanted and _ACCEPTS[kind](number) for kind, number in numbers)
    return n
