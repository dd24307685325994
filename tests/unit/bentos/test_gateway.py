"""What the gateway's driver does before it talks to Envoy."""

from __future__ import annotations

import fcntl

import pytest

from bentos import gateway
from bentos.routing import Routing
from lake.settings import Settings


def test_routes_that_another_process_never_stops_changing_are_told_of(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "LOCK_TIMEOUT_S", 0.1)
    folder = settings.home / "gateway"
    folder.mkdir(parents=True)
    with (folder / "apply.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(gateway.GatewayError, match="in the middle of changing them"):
            gateway.apply(settings, Routing())
    with pytest.raises(gateway.GatewayError, match="Envoy's admin port"):  # free again: it goes on to ask Envoy
        gateway.apply(settings, Routing())
