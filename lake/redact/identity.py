"""National identity numbers, each by its own rules: a shape, parts that can exist, and check digits where it has them."""

from __future__ import annotations

import re

from lake.redact.checksums import mod_11_10, weighted
from lake.redact.shape import Shape

_ALONE, _END = r"(?<![\w.,+/-].)", r"(?![\w-]|[.,][0-9])"

# United States, social security number: no area 000, 666 or 9xx, no group 00, no serial 0000 (SSA, since 2011).
_US_SSN = re.compile(rf"[0-8]{_ALONE}(?!(?<=0)00|(?<=6)66)[0-9]{{2}}-(?!00)[0-9]{{2}}-(?!0000)[0-9]{{4}}{_END}")
# United Kingdom, national insurance number: prefixes that are never allocated are left out (HMRC, NIM39110).
_UK_NINO = re.compile(
    rf"[A-CEGHJ-PR-TW-Z]{_ALONE}[A-CEGHJ-NPR-TW-Z](?<!BG|GB|KN|NK|NT|TN|ZZ)"
    rf"( ?)[0-9]{{2}}\1[0-9]{{2}}\1[0-9]{{2}}\1[A-D]{_END}"
)
# Germany, tax identification number: 11 digits, ISO 7064 MOD 11,10 (§ 139b AO).
_DE_TAX = re.compile(rf"[1-9]{_ALONE}(?:[0-9]{{10}}|[0-9] [0-9]{{3}} [0-9]{{3}} [0-9]{{3}}){_END}")
# France, numéro d'inscription au répertoire: sex, year, month, department, commune, order, and a key of 97 - n mod 97.
# Corsica's departments have a letter.
_FR_BIRTH = rf"[12]{_ALONE}(?P<gap> ?)[0-9]{{2}}(?P=gap)(?:0[1-9]|1[0-2]|[2-4][0-9]|[5-9][0-9])(?P=gap)"
_FR_REST = rf"(?P=gap)[0-9]{{3}}(?P=gap)[0-9]{{3}}(?P=gap)[0-9]{{2}}{_END}"
_FR_NIR = re.compile(rf"{_FR_BIRTH}[0-9]{{2}}{_FR_REST}")
_FR_NIR_CORSICA = re.compile(rf"{_FR_BIRTH}2[AB]{_FR_REST}")
# Spain, DNI and NIE: the letter is the number modulo 23 (Real Decreto 1553/2005).
_ES_DNI = re.compile(rf"[0-9XYZ]{_ALONE}[0-9]{{7}}-?[A-HJ-NP-TV-Z]{_END}")
_ES_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
# Italy, codice fiscale: 15 characters and a check letter (D.M. 23 December 1976).
_IT_CF = re.compile(rf"[A-Z]{_ALONE}[A-Z]{{5}}[0-9]{{2}}[ABCDEHLMPRST][0-9]{{2}}[A-Z][0-9]{{3}}[A-Z]{_END}")
_IT_ODD = dict(zip("0123456789", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21), strict=True)) | dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)
# Poland, PESEL: a date of birth (the month carries the century), an order, a weighted check digit.
_PL_PESEL = re.compile(rf"[0-9]{_ALONE}[0-9](?:[02468][1-9]|[13579][0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{{5}}{_END}")


def _is_de_tax(match: re.Match[str]) -> bool:
    digits = match[0].replace(" ", "")
    counts = sorted(map(digits[:-1].count, set(digits[:-1])))
    # Among the first ten digits one stands twice or three times, all others at most once (BZSt, since 2016).
    return counts[-1] in (2, 3) and (len(counts) == 1 or counts[-2] == 1) and mod_11_10(digits)


def _is_fr_nir(match: re.Match[str]) -> bool:
    code = match[0].replace(" ", "")
    corsica = {"2A": 1_000_000, "2B": 2_000_000}.get(code[5:7], 0)  # counted as 20 less one or two million
    number = int(code[:13].replace("A", "0").replace("B", "0")) - corsica
    return 97 - number % 97 == int(code[13:])


def _is_es_dni(match: re.Match[str]) -> bool:
    code = match[0].replace("-", "")
    number = int(code[:-1].translate(str.maketrans("XYZ", "012")))
    return _ES_LETTERS[number % 23] == code[-1]


def _is_it_cf(match: re.Match[str]) -> bool:
    odd = sum(_IT_ODD[character] for character in match[0][0:15:2])
    even = sum(int(c) if c.isdigit() else ord(c) - ord("A") for c in match[0][1:15:2])
    return (odd + even) % 26 == ord(match[0][15]) - ord("A")


def _is_pl_pesel(match: re.Match[str]) -> bool:
    return (10 - weighted(match[0], (1, 3, 7, 9, 1, 3, 7, 9, 1, 3), 10)) % 10 == int(match[0][10])


_PLACEHOLDER = "<NATIONAL_ID>"
NATIONAL_ID = (
    Shape(_US_SSN, _PLACEHOLDER, (("-",),), b"0" * 9),
    Shape(_UK_NINO, _PLACEHOLDER, (), b"AA000000A"),
    Shape(_DE_TAX, _PLACEHOLDER, (), b"0" * 11, _is_de_tax),
    Shape(_FR_NIR, _PLACEHOLDER, (), b"0" * 15, _is_fr_nir),
    Shape(_FR_NIR_CORSICA, _PLACEHOLDER, (("2A", "2B"),), b"000000A00000000", _is_fr_nir),
    Shape(_ES_DNI, _PLACEHOLDER, (), b"0000000A", _is_es_dni),
    Shape(_IT_CF, _PLACEHOLDER, (), b"AAAAAA00A00A000A", _is_it_cf),
    Shape(_PL_PESEL, _PLACEHOLDER, (), b"0" * 11, _is_pl_pesel),
)
