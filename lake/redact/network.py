"""Public IP addresses. Private, loopback, link-local, multicast and documentation ones name nobody, and stay."""

from __future__ import annotations

import ipaddress
import re

from lake.redact.shape import Shape

# Four numbers of up to three digits. Not a part of a longer dotted number (an OID), nor of a file's or host's name.
_V4 = re.compile(
    r"[0-9](?<![\w.].)(?<![A-Za-z][-/].)(?:[0-9]{0,2}\.)(?:[0-9]{1,3}\.){2}[0-9]{1,3}(?!\w|\.\w|-[A-Za-z])"
)
# Versions and sections of documents have four numbers too. Few go beyond 13, and few addresses below it stand without a
# word that says what they are, a scheme before them or a port after them.
_LAST_VERSION = 13
_VERSION_BEFORE = re.compile(
    r"(?i)(?:\b(?:versions?|ver|v|v8 to|releases?|rev|build|sections?|oid|since)\.?|[=<>~^])[\s:=]*$"
)
_ADDRESS_BEFORE = re.compile(
    r"(?i)(?:://|@|\b(?:ips?|ipv4|hosts?|remotehost|address(?:es)?|addr|servers?|dns|nameservers?|from|ping|peer|client|proxy)\b[^.\n]{0,12})$"
)
_PORT_AFTER = re.compile(r":[0-9]{1,5}\b|/[0-9]{1,2}\b")
_BEFORE_CHARACTERS = 30
# Global unicast, 2000::/3 (RFC 4291, 2.4): the only block that is assigned to hosts, and far from times and `a::b`.
_V6 = re.compile(r"[23](?<![\w:.].)[0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")


def _is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.is_global and not found.is_multicast


def _is_public_v4(match: re.Match[str]) -> bool:
    text, address = match.string, match[0]
    before = text[max(0, match.start() - _BEFORE_CHARACTERS) : match.start()]
    if not _is_public(address) or _VERSION_BEFORE.search(before):
        return False
    is_like_a_version = int(address[: address.index(".")]) <= _LAST_VERSION
    return not is_like_a_version or bool(_ADDRESS_BEFORE.search(before) or _PORT_AFTER.match(text, match.end()))


def _is_public_v6(match: re.Match[str]) -> bool:
    return _is_public(match[0])


IP = (
    Shape(_V4, "<IP>", ((".",),), accepts=_is_public_v4),
    Shape(_V6, "<IP>", ((":",),), accepts=_is_public_v6),
)
