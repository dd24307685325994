"""The gateway as clients meet it: a real Envoy in front of small real servers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx
import openai
import pytest

from bentos import gateway
from bentos.counters import Block, Snapshot, block, stats_of
from bentos.envoy_bootstrap import MAX_REQUEST_BYTES
from bentos.envoy_stats import read_stats
from bentos.routing import Endpoint, ModelRoute, Routing
from lake.settings import Settings, load_settings
from tests.ports import free_ports
from tests.servers import envoy, upstream, wait_until

pytestmark = pytest.mark.integration

MODEL = "docs"
N_FLIPS = 16


@dataclass(frozen=True)
class World:
    """A running gateway with three replicas behind it: docs v1 and v2, other v1."""

    settings: Settings
    endpoints: tuple[Endpoint, ...]
    # A client of its own for each request would spend 40 ms on reading certificates.
    client: httpx.Client

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.settings.gateway_api_key}"}

    def port(self, model: str, version: str) -> int:
        return next(e.port for e in self.endpoints if (e.model, e.version) == (model, version))

    def route(self, *routes: ModelRoute) -> None:
        gateway.apply(self.settings, Routing(routes=routes, endpoints=self.endpoints))

    def ask(self, body: object, path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
        return self.client.post(f"{self.settings.gateway_url}{path}", json=body, headers={**self.headers, **headers})

    def seen(self, version: str) -> dict[str, object]:
        told: dict[str, object] = self.client.get(f"http://127.0.0.1:{self.port(MODEL, version)}/seen").json()
        return told

    def load(self, n_requests: int, n_clients: int = 16, meanwhile: object = None) -> Counter[str]:
        """Ask `n_requests` times, `n_clients` at once, while the coroutine function `meanwhile` runs."""
        return asyncio.run(self._load(n_requests, n_clients, meanwhile))

    async def _load(self, n_requests: int, n_clients: int, meanwhile: object) -> Counter[str]:
        outcomes: Counter[str] = Counter()
        turns = iter(range(n_requests))
        async with httpx.AsyncClient(base_url=self.settings.gateway_url, headers=self.headers, timeout=20) as client:

            async def ask_in_turn() -> None:
                for turn in turns:
                    outcomes[await _outcome(client, {"model": MODEL, "user": f"u{turn}"})] += 1

            clients = [ask_in_turn() for _ in range(n_clients)]
            extra = [asyncio.to_thread(meanwhile)] if callable(meanwhile) else []
            await asyncio.gather(*clients, *extra)
        return outcomes


async def _outcome(client: httpx.AsyncClient, body: dict[str, str]) -> str:
    """The version that answered, or what went wrong."""
    try:
        answer = await client.post("/v1/chat/completions", json=body)
    except httpx.HTTPError as error:
        return f"failed: {error!r}"
    return str(answer.json()["tag"]) if answer.is_success else f"failed: {answer.status_code} {answer.text}"


def to_champion() -> ModelRoute:
    return ModelRoute(model=MODEL, champion="v1")


def split(stage: str, share: float) -> ModelRoute:
    return ModelRoute.model_validate(
        {"model": MODEL, "champion": "v1", "challenger": "v2", "stage": stage, "share": share, "sticky": stage == "ab"}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def world(folder: Path) -> Iterator[World]:
    public, admin, *ports = free_ports(5)
    settings = load_settings(home=folder / "home", gateway_port=public, gateway_admin_port=admin)
    names = ((MODEL, "v1"), (MODEL, "v2"), ("other", "v1"))
    with ExitStack() as stack:
        for (model, version), port in zip(names, ports, strict=True):
            tag = version if model == MODEL else f"{model}-{version}"
            stack.enter_context(upstream(tag, port, folder / f"{tag}.log"))
        stack.enter_context(envoy(settings))
        yield World(
            settings,
            tuple(Endpoint(model=m, version=v, port=p) for (m, v), p in zip(names, ports, strict=True)),
            stack.enter_context(httpx.Client(timeout=20)),
        )


def test_a_key_is_required_and_the_refusal_has_openais_shape(world: World) -> None:
    world.route(to_champion())
    client = openai.OpenAI(base_url=f"{world.settings.gateway_url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refused:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}])
    assert refused.value.code == "invalid_api_key"
    assert httpx.get(f"{world.settings.gateway_url}/v1/models").status_code == 401


def test_health_needs_no_key(world: World) -> None:
    answer = httpx.get(f"{world.settings.gateway_url}/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_the_key_stays_at_the_gateway(world: World) -> None:
    world.route(to_champion())
    assert world.ask({"model": MODEL}).is_success
    assert "authorization" not in world.seen("v1")["headers"]  # type: ignore[operator]


def test_models_are_listed_as_openai_lists_them(world: World) -> None:
    world.route(to_champion(), ModelRoute(model="other", champion="v1"))
    client = openai.OpenAI(base_url=f"{world.settings.gateway_url}/v1", api_key=world.settings.gateway_api_key)
    assert [model.id for model in client.models.list()] == [MODEL, "other"]
    assert client.models.retrieve("other").owned_by == "tidemill"


def test_the_body_names_the_model(world: World) -> None:
    world.route(to_champion(), ModelRoute(model="other", champion="v1"))
    assert world.ask({"model": MODEL}).json()["tag"] == "v1"
    assert world.ask({"model": "other"}).json()["tag"] == "other-v1"
    assert world.ask({"model": "other", "prompt": "x"}, path="/v1/completions").json()["path"] == "/v1/completions"


def test_the_path_may_name_the_model(world: World) -> None:
    world.route(to_champion(), ModelRoute(model="other", champion="v1"))
    answer = world.ask({"model": "whatever"}, path="/other/v1/chat/completions").json()
    assert (answer["tag"], answer["path"]) == ("other-v1", "/v1/chat/completions")


def test_a_version_can_be_pinned(world: World) -> None:
    world.route(to_champion())
    assert world.ask({"model": f"{MODEL}:v2"}).json()["tag"] == "v2"
    assert world.ask({"model": MODEL}, **{"x-tidemill-version": "v2"}).json()["tag"] == "v2"
    assert world.ask({"model": MODEL}, **{"x-tidemill-version": "v1"}).json()["tag"] == "v1"


def test_what_cannot_be_routed_is_refused_in_openais_shape(world: World) -> None:
    world.route(to_champion())
    unknown = world.ask({"model": "nobody"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert MODEL in unknown.json()["error"]["message"]
    missing = world.ask({"messages": []})
    assert (missing.status_code, missing.json()["error"]["code"]) == (400, "missing_model")
    garbled = httpx.post(
        f"{world.settings.gateway_url}/v1/chat/completions",
        content=b"{not json",
        headers={**world.headers, "content-type": "application/json"},
    )
    assert (garbled.status_code, garbled.json()["error"]["code"]) == (400, "missing_model")
    elsewhere = httpx.get(f"{world.settings.gateway_url}/elsewhere", headers=world.headers)
    assert (elsewhere.status_code, elsewhere.json()["error"]["type"]) == (404, "invalid_request_error")


def test_a_request_that_is_too_large_is_refused(world: World) -> None:
    world.route(to_champion())
    answer = world.ask({"model": MODEL, "prompt": "x" * (MAX_REQUEST_BYTES + 1)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_nothing_fails_while_weights_change_under_load(world: World) -> None:
    world.route(to_champion())

    def flip() -> None:
        for number in range(N_FLIPS):
            world.route(split("canary", 0.25 + 0.5 * (number % 2)))

    outcomes = world.load(3_000, meanwhile=flip)
    assert set(outcomes) == {"v1", "v2"}, outcomes


def test_a_user_stays_with_one_version(world: World) -> None:
    world.route(split("ab", 0.5))
    versions = {}
    for user in range(40):
        answers = [world.ask({"model": MODEL, "user": f"user-{user}"}).json()["tag"] for _ in range(3)]
        assert len(set(answers)) == 1, f"user {user} met {answers}"
        versions[user] = answers[0]
    # 40 fair draws: fewer than 8 of either has a probability of 1e-4, and the hash is the same in every run.
    assert min(Counter(versions.values()).values()) >= 8


def test_a_shadow_gets_a_marked_copy_and_its_answer_goes_nowhere(world: World) -> None:
    world.route(split("shadow", 1.0))
    before = world.seen("v1"), world.seen("v2")
    outcomes = world.load(200)
    assert outcomes == {"v1": 200}
    wait_until("the copies arrive", lambda: world.seen("v2")["shadow"] == before[1]["shadow"] + 200)  # type: ignore[operator]
    assert world.seen("v1")["live"] == before[0]["live"] + 200  # type: ignore[operator]
    assert world.seen("v2")["live"] == before[1]["live"]


def test_a_client_cannot_mark_its_request_as_a_shadow(world: World) -> None:
    world.route(to_champion())
    before = world.seen("v1")
    assert world.ask({"model": MODEL}, **{"x-tidemill-shadow": "true"}).is_success
    after = world.seen("v1")
    assert (after["live"], after["shadow"]) == (before["live"] + 1, before["shadow"])  # type: ignore[operator]


def test_counters_tell_versions_apart(world: World) -> None:
    world.route(split("canary", 0.5))
    before = read_stats(world.settings)
    outcomes = world.load(400)
    wait_until("latencies are told", lambda: all(found.latency_sum_ms > 0 for found in _blocks(world, before)))
    champion, challenger = _blocks(world, before)
    assert (champion.n_requests, champion.n_errors, champion.n_assigned) == (outcomes["v1"], 0, outcomes["v1"])
    assert (challenger.n_requests, challenger.n_errors, challenger.n_assigned) == (outcomes["v2"], 0, outcomes["v2"])
    told = stats_of(champion)
    assert told.latency_mean_ms > 0
    assert told.latency_p95_ms >= told.latency_mean_ms / 2
    # Bounds a tenth apart: a version that is a quarter slower shows.
    bounds = [bound for bound, _ in read_stats(world.settings).of(MODEL, "v1").latency_buckets]
    assert max(after / before for before, after in pairwise(bounds)) < 1.11


def _blocks(world: World, before: Snapshot) -> tuple[Block, Block]:
    after = read_stats(world.settings)
    found = [block(before, after, MODEL, version) for version in ("v1", "v2")]
    assert found[0] is not None
    assert found[1] is not None
    return found[0], found[1]


def test_a_failing_challenger_shows_in_its_own_counters(world: World, folder: Path) -> None:
    port = free_ports(1)[0]
    failing = (*world.endpoints[:1], Endpoint(model=MODEL, version="v3", port=port))
    with upstream("v3", port, folder / "v3.log", error_rate=0.5):
        route = ModelRoute(model=MODEL, champion="v1", challenger="v3", stage="shadow", share=1.0)
        gateway.apply(world.settings, Routing(routes=(route,), endpoints=failing))
        before = read_stats(world.settings)
        assert world.load(100) == {"v1": 100}

        def counted() -> Block | None:
            return block(before, read_stats(world.settings), MODEL, "v3")

        wait_until("all copies are answered", lambda: (found := counted()) is not None and found.n_requests == 100)
        found = counted()
        told = httpx.get(f"http://127.0.0.1:{port}/seen").json()
        assert told["shadow"] == 100
        assert found is not None
        assert 30 <= found.n_errors <= 70
        world.route(to_champion())


def test_the_death_of_the_challenger_fails_no_request(world: World, folder: Path) -> None:
    port = free_ports(1)[0]
    endpoints = (*world.endpoints[:1], Endpoint(model=MODEL, version="v4", port=port))
    with upstream("v4", port, folder / "v4.log") as challenger:
        route = ModelRoute(model=MODEL, champion="v1", challenger="v4", stage="canary", share=0.5)
        gateway.apply(world.settings, Routing(routes=(route,), endpoints=endpoints))
        assert set(world.load(100)) == {"v1", "v4"}
        before = read_stats(world.settings)
        os.kill(challenger.pid, signal.SIGKILL)
        challenger.wait()
        assert world.load(1_000) == {"v1": 1_000}
        assert block(before, read_stats(world.settings), MODEL, "v4").n_errors > 0  # type: ignore[union-attr]
        world.route(to_champion())


def test_clients_wait_for_a_lone_replica_that_is_started_again(world: World, folder: Path) -> None:
    port = free_ports(1)[0]
    alone = Routing(
        routes=(ModelRoute(model=MODEL, champion="v5"),), endpoints=(Endpoint(model=MODEL, version="v5", port=port),)
    )
    with upstream("v5", port, folder / "v5.log") as first:
        gateway.apply(world.settings, alone)
        assert world.load(20) == {"v5": 20}
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    with ExitStack() as stack:

        def start_again() -> None:
            time.sleep(1.5)  # longer than three retries would last
            stack.enter_context(upstream("v5", port, folder / "v5.log"))

        assert world.load(50, meanwhile=start_again) == {"v5": 50}
        world.route(to_champion())


def test_events_of_a_stream_pass_as_they_come(world: World) -> None:
    world.route(to_champion())
    with httpx.stream(
        "POST",
        f"{world.settings.gateway_url}/v1/chat/completions",
        json={"model": MODEL, "stream": True},
        headers=world.headers,
        timeout=20,
    ) as answer:
        lines = (line for line in answer.iter_lines() if line)
        assert json.loads(next(lines).removeprefix("data: "))["tag"] == "v1"  # while the server still holds the rest
        httpx.post(f"http://127.0.0.1:{world.port(MODEL, 'v1')}/release")
        assert list(lines) == ["data: [DONE]"]


def test_a_stream_outlives_its_versions_removal(world: World) -> None:
    world.route(to_champion())
    with httpx.stream(
        "POST",
        f"{world.settings.gateway_url}/v1/chat/completions",
        json={"model": f"{MODEL}:v2", "stream": True},
        headers=world.headers,
        timeout=20,
    ) as answer:
        lines = (line for line in answer.iter_lines() if line)
        assert json.loads(next(lines).removeprefix("data: "))["tag"] == "v2"
        assert read_stats(world.settings).of(MODEL, "v2").n_active == 1
        gateway.apply(world.settings, Routing(routes=(to_champion(),), endpoints=world.endpoints[:1]))
        httpx.post(f"http://127.0.0.1:{world.port(MODEL, 'v2')}/release")
        assert list(lines) == ["data: [DONE]"]
    assert world.ask({"model": f"{MODEL}:v2"}).status_code == 404


def test_a_restarted_gateway_serves_the_same_routes(tmp_path: Path, world: World) -> None:
    public, admin = free_ports(2)
    settings = load_settings(home=tmp_path / "home", gateway_port=public, gateway_admin_port=admin)
    with envoy(settings) as first:
        version = gateway.apply(settings, Routing(routes=(to_champion(),), endpoints=world.endpoints))
        assert World(settings, world.endpoints, world.client).load(20) == {"v1": 20}
        before = read_stats(settings)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert gateway.applied_version(settings) is None
    with envoy(settings):
        again = World(settings, world.endpoints, world.client)
        assert gateway.applied_version(settings) == version
        assert again.ask({"model": MODEL}).json()["tag"] == "v1"
        assert block(before, read_stats(settings), MODEL, "v1") is None


def test_a_gateway_that_is_not_there_is_named(tmp_path: Path) -> None:
    public, admin = free_ports(2)
    settings = load_settings(home=tmp_path / "home", gateway_port=public, gateway_admin_port=admin)
    gateway.write_bootstrap(settings)
    with pytest.raises(gateway.GatewayError, match="tidemill up"):
        gateway.apply(settings, Routing())
    with pytest.raises(gateway.GatewayError, match=str(admin)):
        read_stats(settings)
