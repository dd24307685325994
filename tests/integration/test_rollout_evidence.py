"""What evidence of rollouts rests on, from a real Envoy: a copy has its request's id, and a user's name arrives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from bentos import gateway
from bentos.routing import Endpoint, ModelRoute, Routing
from lake.settings import Settings, load_settings
from tests.ports import free_ports
from tests.servers import envoy, upstream, wait_until

pytestmark = pytest.mark.integration

SHADOW = ModelRoute(model="docs", champion="v1", challenger="v2", stage="shadow", share=1.0)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, dict[str, int]]]:
    """A gateway with docs v1 and its shadow v2 behind it; and their ports."""
    folder = tmp_path_factory.mktemp("evidence")
    public, admin, *ports = free_ports(4)
    settings = load_settings(home=folder / "home", gateway_port=public, gateway_admin_port=admin)
    with ExitStack() as stack:
        for version, port in zip(("v1", "v2"), ports, strict=True):
            stack.enter_context(upstream(version, port, folder / f"{version}.log"))
        stack.enter_context(envoy(settings))
        endpoints = tuple(Endpoint(model="docs", version=f"v{n + 1}", port=port) for n, port in enumerate(ports))
        gateway.apply(settings, Routing(routes=(SHADOW,), endpoints=endpoints))
        yield settings, dict(zip(("v1", "v2"), ports, strict=True))


@pytest.mark.parametrize(
    ("body", "headers", "user"),
    [
        ({}, {}, None),
        ({"user": "ann"}, {}, "ann"),
        ({}, {"x-user": "joe"}, "joe"),
        ({"user": "ann"}, {"x-user": "joe"}, "joe"),
    ],
)
def test_both_versions_and_the_client_know_a_request_by_one_id(
    seen: tuple[Settings, dict[str, int]], body: dict[str, str], headers: dict[str, str], user: str | None
) -> None:
    settings, ports = seen

    def told(version: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{ports[version]}/seen").json()
        return found

    before = told("v2")["shadow"]
    answer = httpx.post(
        f"{settings.gateway_url}/v1/chat/completions",
        json={"model": "docs", **body},
        headers={"authorization": f"Bearer {settings.gateway_api_key}", **headers},
        timeout=20,
    )
    wait_until("the copy arrives", lambda: told("v2")["shadow"] == before + 1)
    ids = {answer.headers["x-request-id"], *(told(version)["headers"]["x-request-id"] for version in ports)}
    assert len(ids) == 1
    assert {told(version)["headers"].get("x-user") for version in ports} == {user}
