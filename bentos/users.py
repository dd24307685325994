"""Who a request is from, as its sender names them, and the hash that the prediction log keeps instead."""

from __future__ import annotations

import hmac

from starlette.requests import HTTPConnection

from lake.settings import Settings

# The gateway keeps a user with one version by the same two, in this order; it makes the header of the body's `user`.
USER_HEADER, USER_COOKIE = "x-user", "tidemill-user"
_MAX_CHARACTERS = 256
_HASH_BYTES = 16
_PURPOSE = b"tidemill prediction log: users"


def user_named_by(request: HTTPConnection) -> str:
    """The user as named, at most 256 characters; empty when the request names none."""
    named = request.headers.get(USER_HEADER) or request.cookies.get(USER_COOKIE, "")
    return named.strip()[:_MAX_CHARACTERS]


def user_key(settings: Settings) -> bytes:
    """The key of an installation's hashes, the same for all of its replicas: 32 bytes.

    Of two secrets: clients know the API key, readers of the log those of the bucket, and neither can try names out alone.
    """
    secret = f"{settings.gateway_api_key}\0{settings.secret_access_key or ''}"
    return hmac.digest(secret.encode(), _PURPOSE, "sha256")


def hashed_user(key: bytes, user: str) -> str:
    """HMAC-SHA256 of the user, its first 16 bytes in hex; empty for none."""
    return hmac.digest(key, user.encode("utf-8", "replace"), "sha256")[:_HASH_BYTES].hex() if user else ""
