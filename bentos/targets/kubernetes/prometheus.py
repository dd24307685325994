"""Counters of every version from Prometheus: Envoy's own, as Envoy Gateway names its clusters, and the pods'.

Envoy's clusters are numbered, so that a name may come to mean another version when a rollout begins or ends. The routes
say which is which and since when; nothing that was scraped before is taken for an answer, and counting begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import httpx

from bentos.counters import Buckets, Counters, Snapshot, VersionCounters
from bentos.targets.kubernetes.cluster import KubernetesError
from bentos.targets.kubernetes.names import object_name
from bentos.targets.kubernetes.routes import is_live
from bentos.targets.kubernetes.settings import KubernetesSettings
from bentos.targets.kubernetes.workloads import CONTAINER
from bentos.targets.target import Key

TIMEOUT_S = 5.0
_OURS = 'envoy_cluster_name=~"httproute/$namespace/.*"'
_SCRAPED = f"and on (instance) envoy_cluster_upstream_rq_active{{{_OURS}}}"

# By name, PromQL. $namespace is replaced. Each answers one series for each combination of the labels in `by`.
QUERIES: Mapping[str, str] = {
    "uptime": f"envoy_server_uptime {_SCRAPED}",
    "scraped_at": f"timestamp(envoy_server_uptime) {_SCRAPED}",
    "answers": f"sum by (envoy_cluster_name, envoy_response_code_class) (envoy_cluster_upstream_rq_xx{{{_OURS}}})",
    "timeouts": f"sum by (envoy_cluster_name) (envoy_cluster_upstream_rq_timeout{{{_OURS}}})",
    "connect_failures": f"sum by (envoy_cluster_name) (envoy_cluster_upstream_cx_connect_fail{{{_OURS}}})",
    "active": f"sum by (envoy_cluster_name) (envoy_cluster_upstream_rq_active{{{_OURS}}})",
    "latency": f"sum by (envoy_cluster_name, le) (envoy_cluster_upstream_rq_time_bucket{{{_OURS}}})",
    "latency_sum": f"sum by (envoy_cluster_name) (envoy_cluster_upstream_rq_time_sum{{{_OURS}}})",
    "first_token": 'sum by (model, version, le) (tidemill_first_token_seconds_bucket{namespace="$namespace"})',
    "cpu": f'sum by (pod) (container_cpu_usage_seconds_total{{namespace="$namespace",container="{CONTAINER}"}})',
    "energy": "",  # kepler's, where it is: sum by (pod) (kepler_container_joules_total{…})
}


class Series(NamedTuple):
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Counted:
    """What the routes say: the version of each of Envoy's clusters, and the last time that this changed."""

    versions: Mapping[str, Key] = field(default_factory=dict)
    since: datetime | None = None


def read_counters(settings: KubernetesSettings, namespace: str, counted: Counted) -> Snapshot:
    """Ask Prometheus, all at one time of its own. Raises KubernetesError when it does not tell, or not yet."""
    if settings.prometheus_url is None:
        raise KubernetesError(
            "Prometheus", expected="TIDEMILL_PROMETHEUS_URL", got="none", remedy="set it: verdicts rest on its counters"
        )
    queries = {**QUERIES, **settings.queries}
    with httpx.Client(base_url=settings.prometheus_url, timeout=TIMEOUT_S) as client:
        at = datetime.now(UTC).timestamp()
        told = {
            name: _ask(client, name, query.replace("$namespace", namespace), at)
            for name, query in queries.items()
            if query
        }
    taken_at, uptime_s = _life(told["uptime"], told["scraped_at"], counted.since, settings.route_settle_s)
    keys = sorted(set(counted.versions.values()))
    return Snapshot(
        taken_at=taken_at,
        uptime_s=uptime_s,
        versions=tuple(
            VersionCounters(model=key[0], version=key[1], counters=_counters(settings, told, counted, key))
            for key in keys
        ),
    )


def _life(
    uptimes: list[Series], scraped_at: list[Series], since: datetime | None, settle_s: float
) -> tuple[datetime, int]:
    """When the oldest of the scrapes was, and how long the youngest proxy, or the meaning of its clusters, is then old."""
    at = {_instance(series): series.value for series in scraped_at}
    began = [at[_instance(series)] - series.value for series in uptimes if _instance(series) in at]
    if not began:
        raise KubernetesError(
            "Prometheus",
            expected="envoy_server_uptime of the Gateway's proxies",
            got="no series",
            remedy="see that it scrapes the proxies' port 19001, path /stats/prometheus",
        )
    changed = since.timestamp() + settle_s if since is not None else 0.0
    taken_at = min(at.values())
    if taken_at <= changed:
        raise KubernetesError(
            "Prometheus",
            expected=f"a scrape of all proxies after {datetime.fromtimestamp(changed, UTC):%H:%M:%S}, "
            "when the routes came to lead elsewhere",
            got=f"one of {datetime.fromtimestamp(taken_at, UTC):%H:%M:%S}",
            remedy="wait for the next",
        )
    return datetime.fromtimestamp(taken_at, UTC), int(taken_at - max(changed, *began))


def _counters(settings: KubernetesSettings, told: Mapping[str, list[Series]], counted: Counted, key: Key) -> Counters:
    names = {name for name, found in counted.versions.items() if found == key}
    live = {name for name in names if is_live(name, settings, key[0])}
    answers = [series for series in told["answers"] if series.labels.get("envoy_cluster_name") in names]
    n_errors = sum(one.value for one in answers if one.labels.get("envoy_response_code_class") == "5")
    latencies = _buckets(_of(told["latency"], names), factor=1.0)
    tokens = _buckets(
        [s for s in told.get("first_token", ()) if (s.labels.get("model"), s.labels.get("version")) == key],
        factor=1000.0,
    )
    return Counters(
        n_answered=round(sum(one.value for one in answers) - n_errors),
        n_errors=round(n_errors),
        n_timeouts=_sum(told["timeouts"], names),
        n_connect_failures=_sum(told["connect_failures"], names),
        n_active=_sum(told["active"], names),
        # Not Envoy's total: requests that found no connection are not in it, and the split assigned them all the same.
        n_assigned=_sum(told["answers"], live) + _sum(told["active"], live),
        n_latencies=latencies[1],
        latency_sum_ms=sum(one.value for one in _of(told["latency_sum"], names)),
        latency_buckets=latencies[0],
        n_first_tokens=tokens[1],
        first_token_buckets=tokens[0],
        cpu_s=_of_pods(told.get("cpu", ()), object_name(settings.installation, *key)),
        energy_j=_of_pods(told.get("energy", ()), object_name(settings.installation, *key)),
    )


def _ask(client: httpx.Client, name: str, query: str, at: float) -> list[Series]:
    """An instant query; its answer is a vector."""
    try:
        answer = client.get("/api/v1/query", params={"query": query, "time": f"{at:.3f}"}).raise_for_status().json()
        if answer["status"] != "success" or answer["data"]["resultType"] != "vector":
            raise ValueError(f"{answer['status']}, {answer.get('data', {}).get('resultType')}")
        found = [Series(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise KubernetesError(
            f"Prometheus, query {name!r}",
            expected="a vector",
            got=f"{type(error).__name__}: {str(error)[:300]}",
            remedy="see TIDEMILL_PROMETHEUS_URL and TIDEMILL_KUBERNETES_QUERIES",
        ) from error
    return [series for series in found if math.isfinite(series.value)]


def _of(found: list[Series], names: set[str]) -> list[Series]:
    return [series for series in found if series.labels.get("envoy_cluster_name") in names]


def _sum(found: list[Series] | tuple[()], names: set[str]) -> int:
    return round(sum(series.value for series in found if series.labels.get("envoy_cluster_name") in names))


def _buckets(found: list[Series], factor: float) -> tuple[Buckets, int]:
    """Cumulative buckets of all series together, bounds times `factor`; and the count of the infinite one."""
    summed: dict[float, float] = {}
    for series in found:
        bound = float(series.labels["le"]) * factor
        summed[bound] = summed.get(bound, 0.0) + series.value
    n = round(summed.pop(math.inf, 0.0))
    return tuple((round(bound, 3), round(count)) for bound, count in sorted(summed.items())), n


def _of_pods(found: list[Series] | tuple[()], deployment: str) -> float | None:
    """The sum over a Deployment's pods, which are called after it; None when nobody tells."""
    values = [one.value for one in found if one.labels.get("pod", "").startswith(f"{deployment}-")]
    return sum(values) if values else None


def _instance(series: Series) -> str:
    return series.labels.get("instance", "")
