"""HTTP to neighbours on this machine: without the proxy of the environment, and cheap to open."""

from __future__ import annotations

import ssl

import httpx


def client(base_url: str = "", timeout_s: float = 5.0) -> httpx.Client:
    """A client for `http://127.0.0.1:…`. Use it in a `with` block.

    The empty TLS context trusts nobody, which plain HTTP does not mind; reading the system's certificates would take
    50 ms of processor time for each client, and the controller asks its neighbours every second.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.Client(base_url=base_url, timeout=timeout_s, trust_env=False, verify=context)
