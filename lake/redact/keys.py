"""Secrets: private keys, tokens by the prefix that their issuer gives them, and values whose name says what they are."""

from __future__ import annotations

import re

from lake.redact.shape import Shape

# The whole PEM block; of one that is cut off, the head and what looks like base64 after it.
_PEM = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:[^-]|-(?!----BEGIN )){0,10000}?-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"|(?:\s*[A-Za-z0-9+/=]{40,})*)"
)
_TOKEN = re.compile(
    r"\b(?:A[KS]IA[A-Z0-9]{16,}"  # Amazon
    r"|sk-[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic and those who follow them
    r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}"  # GitHub
    r"|gl(?:pat|ptt|dt|rt)-[A-Za-z0-9_-]{20,}"  # GitLab
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{20,}"  # Slack
    r"|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,}"  # Stripe
    r"|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{28}"  # Google
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}|hf_[A-Za-z0-9]{30,}"  # registries and hubs
    r"|dop_v1_[a-f0-9]{64}|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"  # DigitalOcean, SendGrid
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"  # JSON Web Token (RFC 7519)
)
_TOKEN_MARKS: tuple[str, ...] = ("AKIA", "ASIA", "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-")
_TOKEN_MARKS += ("glptt-", "gldt-", "glrt-", "xox", "xapp-", "k_live_", "k_test_", "whsec_", "AIza", "ya29.", "GOCSPX-")
_TOKEN_MARKS += ("npm_", "pypi-", "hf_", "dop_v1_", "SG.", "eyJ")
# `api_key = "…"`: the name says that the value is a secret. The value is looked for first, as names are everywhere.
_NAMED = re.compile(r"([:=]\s{0,8}[\"'])(?!<KEY>)[A-Za-z0-9+/_=.-]{16,}([\"'])")
_NAME = re.compile(r"(?i)\b(?:(?:api|secret|access|auth|private)[_-]?(?:key|token)|password|passwd)\s{0,8}$")
# Amazon's secret keys have no prefix: 40 characters after their name, quoted or not.
_AWS_SECRET = re.compile(r"([:=]\s{0,8}[\"']?)[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")
_AWS_NAME = re.compile(r"(?i)\baws_?secret_?(?:access_?)?key[\"']?\s{0,8}$")
_NAME_CHARACTERS = 40
# Azure's connection strings.
_CONNECTION = re.compile(r"\b((?:AccountKey|SharedAccessKey|SharedSecret)=)[A-Za-z0-9+/]{40,}={0,2}")
# `scheme://user:password@host`, but not what documentation writes in its place (`ApiSecret`, `mypass`, `<password>`).
_IN_URL = re.compile(
    r"(://[\w.%+-]{0,64}:)(?!(?i:\w{0,20}(?:pass|passwd|password|pwd|pw|secret|token|key|changeme|x+)@)|[^@]{0,128}[<>{}$*])"
    r"[^\s:/@\"'`]{3,128}(?=@[\w\[])"
)


def _before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - _NAME_CHARACTERS) : match.start()]


def _has_name(match: re.Match[str]) -> bool:
    return _NAME.search(_before(match)) is not None


def _has_aws_name(match: re.Match[str]) -> bool:
    return _AWS_NAME.search(_before(match)) is not None


KEY = (
    Shape(_PEM, "<KEY>", (("-----BEGIN ",),)),
    Shape(_TOKEN, "<KEY>", (_TOKEN_MARKS,)),
    Shape(_AWS_SECRET, r"\1<KEY>", (("ecret", "ECRET"), ("aws", "AWS", "Aws")), accepts=_has_aws_name),
    Shape(_NAMED, r"\1<KEY>\2", (("'", '"'), (":", "=")), accepts=_has_name),
    Shape(_CONNECTION, r"\1<KEY>", (("AccountKey=", "SharedAccessKey=", "SharedSecret="),)),
    Shape(_IN_URL, r"\1<KEY>", (("://",), ("@",))),
)
