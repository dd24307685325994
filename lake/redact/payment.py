"""Bank accounts and payment cards: a fixed shape, an issuer that exists, and check digits that fit."""

from __future__ import annotations

import re
from itertools import groupby

from lake.redact.checksums import luhn, mod_97
from lake.redact.shape import Shape

# Characters of an IBAN by country (the IBAN registry of ISO 13616, release 99).
IBAN_CHARACTERS = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FK", "FI", "FO", "GL", "NL", "SD"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "MN", "XK"), 20),
    **dict.fromkeys(("CH", "HN", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "OM", "SO", "TL"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HU", "LB", "NI", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU", "YE"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    **dict.fromkeys(("LC",), 32),
    **dict.fromkeys(("RU",), 33),
}


def _iban_pattern() -> re.Pattern[str]:
    """One alternative a length, as what follows an IBAN may look like more of it. Spaces or hyphens between groups."""
    by_length = groupby(sorted(IBAN_CHARACTERS, key=IBAN_CHARACTERS.__getitem__), IBAN_CHARACTERS.__getitem__)
    countries = "|".join(rf"(?:{'|'.join(names)})[0-9]{{2}}(?:[ -]?[A-Z0-9]){{{n - 4}}}" for n, names in by_length)
    return re.compile(rf"(?<![A-Za-z0-9])(?=[A-Z]{{2}}[0-9]{{2}})(?:{countries})(?![A-Za-z0-9])")


# Unbroken, or in the groups that are printed on cards: 4-4-4-4(-3) and 4-6-5 or 4-6-4.
_CARD = re.compile(
    r"[2-6](?<![\w.,+-].)(?<![0-9][ -].)"
    r"(?:[0-9]{12,18}|[0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?|[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5})"
    r"(?![\w.,-]*[0-9]|\w)"
)
# Issuer identification numbers (ISO/IEC 7812) with the lengths in use: American Express, Diners Club, Visa, Mastercard,
# Discover, JCB, UnionPay, Maestro.
_ISSUERS = re.compile(
    r"3[47][0-9]{13}|3(?:0[0-5]|[68][0-9]|9[0-9])[0-9]{11,16}|4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2}|35(?:2[89]|[3-8][0-9])|62[0-9]{2})[0-9]{12,15}"
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])[0-9]{8,15}"
)


def _is_iban(match: re.Match[str]) -> bool:
    return mod_97(match[0].replace(" ", "").replace("-", ""))


def _is_card(match: re.Match[str]) -> bool:
    digits = match[0].replace(" ", "").replace("-", "")
    return _ISSUERS.fullmatch(digits) is not None and luhn(digits) and len(set(digits)) > 1


IBAN = (Shape(_iban_pattern(), "<IBAN>", skeleton=b"AA00", accepts=_is_iban),)
CARD = (Shape(_CARD, "<CARD>", skeleton=b"0" * 13, accepts=_is_card),)
