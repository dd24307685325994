"""E-mail addresses and phone numbers."""

from __future__ import annotations

import re

from lake.redact.shape import Shape

# A local part, an @, a domain with at least one dot and a top level of two letters or more (RFC 5321 and 6531,
# simplified). Nothing is asked of what stands around it: a rest that stays behind is better than an address that does.
_DOMAIN = r"(?:[\w-]{1,255}\.){1,8}[^\W\d_]{2,}"
_EMAIL = re.compile(rf"[\w.%+-]{{1,64}}@{_DOMAIN}")
_AT_DOMAIN = re.compile(rf"@(?<=[\w.%+-]@){_DOMAIN}")

# International: a +, no leading 0, 8 to 15 digits (E.164). Not a signed decimal number, which technical text is full of:
# there the + comes before digits, one dot, digits.
_SEPARATOR = r"[ .()-]{0,2}"
_INTERNATIONAL = re.compile(
    rf"\+(?<![\w.]\+)(?!\d+\.\d+(?!{_SEPARATOR}\d))[1-9]\d{{0,2}}(?:{_SEPARATOR}\d){{7,14}}(?!{_SEPARATOR}\d)"
)
# North American, its separators in the right places: bare digit runs, versions, dates and addresses do not match.
_NATIONAL = re.compile(r"[(0-9](?<![\w.+-].)(?:(?<=\()\d{3}\) ?\d{3}[ .-]|(?<=[0-9])\d{2}-\d{3}-)\d{4}(?![\w.-]*\d)")

EMAIL = (Shape(_EMAIL, "<EMAIL>", (("@",),), hint=_AT_DOMAIN),)
PHONE = (Shape(_INTERNATIONAL, "<PHONE>", (("+",),)), Shape(_NATIONAL, "<PHONE>", ((")", "-"),)))
