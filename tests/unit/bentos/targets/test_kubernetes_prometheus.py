"""Counters from what Prometheus answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from bentos.counters import block
from bentos.targets.kubernetes import KubernetesError, KubernetesSettings
from bentos.targets.kubernetes.names import object_name
from bentos.targets.kubernetes.prometheus import QUERIES, Counted, read_counters

Json = dict[str, Any]
SCRAPED_AT = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
MAIN = f"httproute/models/{object_name('tidemill', 'docs')}"
SHADOW = f"httproute/models/{object_name('tidemill', 'docs', 'shadow')}/rule/0/backend/0"
ONE, TWO = f"{MAIN}/rule/0/backend/0", f"{MAIN}/rule/0/backend/1"
VERSIONS = {
    ONE: ("docs", "v1"),
    f"{MAIN}/rule/1/backend/0": ("docs", "v1"),
    TWO: ("docs", "v2"),
    SHADOW: ("docs", "v2"),
}


def series(value: float, **labels: str) -> Json:
    return {"metric": labels, "value": [SCRAPED_AT, str(value)]}


def of(cluster: str, value: float, **labels: str) -> Json:
    return series(value, envoy_cluster_name=cluster, **labels)


class Prometheus:
    """Answers each of our queries with the series that a test has put there, as Prometheus words it."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Json]] = {
            "uptime": [series(600, instance="a"), series(90, instance="b")],
            "scraped_at": [series(SCRAPED_AT, instance="a"), series(SCRAPED_AT + 4, instance="b")],
        }
        self.asked_at: set[str] = set()
        self.raw: bytes | None = None

    def answer(self, query: str) -> bytes:
        if self.raw is not None:
            return self.raw
        named = {told.replace("$namespace", "models"): name for name, told in QUERIES.items()}
        result = self.answers.get(named.get(query, query), [])
        return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    told = Prometheus()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = parse_qs(urlparse(self.path).query)
            told.asked_at.add(asked["time"][0])
            body = told.answer(asked["query"][0])
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield told
        server.shutdown()


def settings(prometheus: Any, **told: Any) -> KubernetesSettings:
    return KubernetesSettings(prometheus_url=prometheus.url, **told)


def since(seconds: float) -> Counted:
    return Counted(VERSIONS, datetime.fromtimestamp(SCRAPED_AT - seconds, UTC))


def test_envoys_clusters_become_versions(prometheus: Prometheus) -> None:
    prometheus.answers |= {
        "answers": [
            of(ONE, 90, envoy_response_code_class="2"),
            of(ONE, 5, envoy_response_code_class="4"),
            of(f"{MAIN}/rule/1/backend/0", 3, envoy_response_code_class="5"),
            of(TWO, 7, envoy_response_code_class="5"),
            of(f"{MAIN}/rule/2/backend/0", 1000, envoy_response_code_class="5"),  # pinned
        ],
        "active": [of(ONE, 2), of(TWO, 1), of(SHADOW, 2)],
        "timeouts": [of(TWO, 4)],
        "connect_failures": [of(TWO, 3)],
        "latency": [of(ONE, 60, le="10"), of(ONE, 95, le="100"), of(ONE, 98, le="+Inf"), of(TWO, 7, le="+Inf")],
        "latency_sum": [of(ONE, 1234.5)],
        "first_token": [
            series(4, model="docs", version="v1", le="0.05"),
            series(9, model="docs", version="v1", le="+Inf"),
        ],
        "cpu": [
            series(7.5, pod=f"{object_name('tidemill', 'docs', 'v1')}-abc-x1"),
            series(1.5, pod=f"{object_name('tidemill', 'docs', 'v1')}-abc-x2"),
            series(100.0, pod="somebody-else"),
        ],
    }
    seen = read_counters(settings(prometheus), "models", since(3600))
    one, two = seen.of("docs", "v1"), seen.of("docs", "v2")
    assert (one.n_answered, one.n_errors, one.n_assigned) == (95, 3, 100)
    assert (one.n_latencies, one.latency_buckets, one.latency_sum_ms) == (98, ((10.0, 60), (100.0, 95)), 1234.5)
    assert (one.n_first_tokens, one.first_token_buckets) == (9, ((50.0, 4),))
    assert (one.cpu_s, one.energy_j) == (9.0, None)
    assert (two.n_answered, two.n_errors, two.n_assigned) == (0, 7, 8)
    assert (two.n_active, two.n_timeouts, two.n_connect_failures, two.cpu_s) == (3, 4, 3, None)
    assert len(prometheus.asked_at) == 1


def test_time_is_that_of_the_oldest_scrape_and_the_youngest_proxy(prometheus: Prometheus) -> None:
    seen = read_counters(settings(prometheus), "models", since(3600))
    assert seen.taken_at.timestamp() == SCRAPED_AT
    assert seen.uptime_s == 86  # proxy b began 90 s before its own, later scrape


def test_a_change_of_meaning_begins_a_new_life(prometheus: Prometheus) -> None:
    before = read_counters(settings(prometheus), "models", since(3600))
    prometheus.answers["scraped_at"] = [series(SCRAPED_AT + 60, instance="a"), series(SCRAPED_AT + 64, instance="b")]
    prometheus.answers["uptime"] = [series(660, instance="a"), series(150, instance="b")]
    unchanged = read_counters(settings(prometheus), "models", since(3600))
    assert block(before, unchanged, "docs", "v1") is not None
    changed = read_counters(settings(prometheus), "models", since(-10))
    assert changed.uptime_s == 60 - 10 - 5
    assert block(before, changed, "docs", "v1") is None


def test_a_scrape_of_before_the_change_is_no_answer(prometheus: Prometheus) -> None:
    with pytest.raises(KubernetesError, match="after 12:00:04"):
        read_counters(settings(prometheus), "models", since(1))
    read_counters(settings(prometheus, route_settle_s=0), "models", since(1))


def test_versions_without_a_request_have_zeros(prometheus: Prometheus) -> None:
    seen = read_counters(settings(prometheus), "models", since(3600))
    assert [(found.version, found.counters.n_answered) for found in seen.versions] == [("v1", 0), ("v2", 0)]


def test_no_proxy_is_no_answer(prometheus: Prometheus) -> None:
    prometheus.answers["uptime"] = []
    with pytest.raises(KubernetesError, match="envoy_server_uptime"):
        read_counters(settings(prometheus), "models", since(3600))


def test_a_query_can_be_replaced(prometheus: Prometheus) -> None:
    prometheus.answers["joules"] = [series(42, pod=f"{object_name('tidemill', 'docs', 'v1')}-abc-x1")]
    told = settings(prometheus, queries={"energy": "joules"})
    assert read_counters(told, "models", since(3600)).of("docs", "v1").energy_j == 42


@pytest.mark.parametrize(
    "raw",
    [
        b"no JSON",
        b"[]",
        b'{"status": "error", "error": "parse error"}',
        b'{"status": "success", "data": {"resultType": "scalar", "result": [1, "1"]}}',
        b'{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}}]}}',
    ],
)
def test_what_is_no_answer_is_told(prometheus: Prometheus, raw: bytes) -> None:
    prometheus.raw = raw
    with pytest.raises(KubernetesError, match="a vector"):
        read_counters(settings(prometheus), "models", since(3600))


def test_without_prometheus_there_is_a_remedy() -> None:
    with pytest.raises(KubernetesError, match="TIDEMILL_PROMETHEUS_URL"):
        read_counters(KubernetesSettings(), "models", Counted())
    with pytest.raises(KubernetesError, match="TIDEMILL_PROMETHEUS_URL"):
        read_counters(KubernetesSettings(prometheus_url="http://127.0.0.1:9"), "models", Counted())
