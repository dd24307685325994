"""Envoy by hot restart: a real Envoy is replaced by a real Envoy while clients ask."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from bentos import gateway
from bentos.counters import Snapshot, block
from bentos.envoy_stats import read_stats
from bentos.routing import Endpoint, ModelRoute, Routing
from flows.processes import program
from lake.settings import Settings, load_settings
from tests.ports import free_ports
from tests.servers import answers, process, upstream, wait_until

pytestmark = pytest.mark.integration


@contextmanager
def restartable(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    bootstrap = gateway.write_bootstrap(settings)
    command = [sys.executable, "-m", "bentos.envoy_process", str(bootstrap.parent / "base-id"), program("envoy")]
    log = settings.home / "logs" / "envoy.log"
    with process([*command, "-c", str(bootstrap), "--concurrency", "2", "-l", "warning"], log) as started:
        wait_until("the gateway answers", lambda: answers(f"{settings.gateway_url}/healthz"))
        yield started


def test_envoy_is_replaced_without_a_failed_request(tmp_path: Path) -> None:
    public, admin, port = free_ports(3)
    settings = load_settings(home=tmp_path / "home", gateway_port=public, gateway_admin_port=admin)
    routing = Routing(
        routes=(ModelRoute(model="docs", champion="v1"),), endpoints=(Endpoint(model="docs", version="v1", port=port),)
    )
    with upstream("v1", port, tmp_path / "v1.log"), restartable(settings) as restarter:
        version = gateway.apply(settings, routing)
        first = _envoys(restarter)
        with _traffic(settings) as outcomes:
            wait_until("clients are answered", lambda: outcomes.total() > 200)
            before = read_stats(settings)
            restarter.send_signal(signal.SIGHUP)
            wait_until("another Envoy is there", lambda: len(_envoys(restarter)) == 2)
            wait_until("its counters begin anew", lambda: _began_anew(settings, before))
            wait_until("it routes the same", lambda: gateway.applied_version(settings) == version)
            answered = outcomes.total()
            wait_until("clients are answered", lambda: outcomes.total() > answered + 200)
        assert set(outcomes) == {200}, outcomes
        assert first < _envoys(restarter)


def test_a_bootstrap_that_envoy_finds_wrong_leaves_it_in_place_and_its_death_is_told(tmp_path: Path) -> None:
    public, admin = free_ports(2)
    settings = load_settings(home=tmp_path / "home", gateway_port=public, gateway_admin_port=admin)
    log = settings.home / "logs" / "envoy.log"
    with restartable(settings) as restarter:
        running = _envoys(restarter)
        bootstrap = json.loads(gateway.bootstrap_path(settings).read_text())
        bootstrap["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = 70_000
        gateway.bootstrap_path(settings).write_text(json.dumps(bootstrap))
        restarter.send_signal(signal.SIGHUP)
        wait_until("Envoy says what is wrong", lambda: "port_value" in log.read_text().lower())
        wait_until("only the first runs", lambda: _envoys(restarter) == running)
        assert answers(f"{settings.gateway_url}/healthz")
        psutil.Process(running.pop()).kill()
        assert restarter.wait(timeout=30) != 0


def test_no_envoy_outlives_its_restarter(tmp_path: Path) -> None:
    public, admin = free_ports(2)
    settings = load_settings(home=tmp_path / "home", gateway_port=public, gateway_admin_port=admin)
    with restartable(settings) as restarter:
        (envoy,) = _envoys(restarter)
        restarter.kill()
        restarter.wait()
        wait_until("it is gone", lambda: not psutil.pid_exists(envoy))


def _began_anew(settings: Settings, before: Snapshot) -> bool:
    """Never the sum of both processes' counters."""
    try:
        return block(before, read_stats(settings), "docs", "v1") is None
    except gateway.GatewayError:  # the admin port is between two
        return False


def _envoys(restarter: subprocess.Popen[bytes]) -> set[int]:
    return {child.pid for child in psutil.Process(restarter.pid).children() if child.name() == "envoy"}


@contextmanager
def _traffic(settings: Settings) -> Iterator[Counter[int | str]]:
    """Four clients, each on a connection that it keeps. Status codes, or what went wrong."""
    outcomes: Counter[int | str] = Counter()
    stopping = threading.Event()

    def ask() -> None:
        headers = {"authorization": f"Bearer {settings.gateway_api_key}"}
        with httpx.Client(base_url=settings.gateway_url, headers=headers, timeout=20) as client:
            while not stopping.wait(0.01):
                try:
                    outcomes[client.post("/v1/completions", json={"model": "docs"}).status_code] += 1
                except httpx.HTTPError as error:
                    outcomes[repr(error)] += 1

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
