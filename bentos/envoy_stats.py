"""What Envoy has counted per version.

Requests and errors come from the counters of each replica's *host*: with a fallback cluster in front, only those say
which version really answered. Latency and what the split assigned come from the clusters that have the version as
first choice.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bentos import loopback
from bentos.counters import Counters, Snapshot, VersionCounters
from bentos.gateway import GatewayError, admin_url
from bentos.routing import is_split, latency_source, parse_cluster_name
from lake.settings import Settings

_HISTOGRAM = "envoy_cluster_upstream_rq_time"
_ASSIGNED = "envoy_cluster_upstream_rq_completed_total"  # as the parser spells a counter


def read_stats(settings: Settings) -> Snapshot:
    """Ask Envoy's admin port. Raises GatewayError when it does not answer."""
    try:
        with loopback.client(admin_url(settings)) as admin:
            taken_at = datetime.now(UTC)
            hosts = admin.get("/clusters", params={"format": "json"}).raise_for_status().json()
            uptime = admin.get("/stats", params={"filter": r"^server\.uptime$"}).raise_for_status().text
            histograms = (
                admin.get(
                    "/stats/prometheus", params={"filter": r"^cluster\.[^.]*/[^.]*\.upstream_rq_(time|completed)$"}
                )
                .raise_for_status()
                .text
            )
    except (httpx.HTTPError, ValueError) as error:
        raise GatewayError(
            f"gateway at {admin_url(settings)}",
            expected="statistics from Envoy's admin port",
            got=f"{type(error).__name__}: {error}",
            remedy="start it with 'tidemill up'",
        ) from error
    found = re.search(r"server\.uptime: (\d+)", uptime)
    return Snapshot(
        taken_at=taken_at,
        uptime_s=int(found.group(1)) if found else 0,
        versions=_combined(_host_counters(hosts), _latencies(histograms)),
    )


def _host_counters(clusters: dict[str, Any]) -> dict[tuple[str, str], Counters]:
    """Counters from `/clusters?format=json`, by model and version."""
    counted: dict[tuple[str, str], Counters] = {}
    for cluster in clusters.get("cluster_statuses", ()):
        name = parse_cluster_name(cluster["name"])
        if name is None:
            continue
        key = name[0], name[1]
        for host in cluster.get("host_statuses", ()):
            stats = {stat["name"]: int(stat.get("value", 0)) for stat in host.get("stats", ())}
            counted[key] = _added(
                counted.get(key, Counters()),
                Counters(
                    n_answered=stats.get("rq_success", 0),
                    # A failed connection is retried elsewhere; it still is a request that this version did not answer.
                    n_errors=stats.get("rq_error", 0) + stats.get("cx_connect_fail", 0),
                    n_timeouts=stats.get("rq_timeout", 0),
                    n_connect_failures=stats.get("cx_connect_fail", 0),
                    n_active=stats.get("rq_active", 0),
                ),
            )
    return counted


def _latencies(text: str) -> dict[tuple[str, str], Counters]:
    """Histograms and assigned requests from the Prometheus page, by model and version."""
    by_cluster: dict[str, dict[str, Any]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            cluster = by_cluster.setdefault(sample.labels.get("envoy_cluster_name", ""), {"buckets": []})
            if sample.name == _ASSIGNED:
                cluster["assigned"] = int(sample.value)
            elif sample.name == f"{_HISTOGRAM}_sum":
                cluster["sum"] = float(sample.value)
            elif sample.name == f"{_HISTOGRAM}_count":
                cluster["count"] = int(sample.value)
            elif sample.name == f"{_HISTOGRAM}_bucket" and not math.isinf(float(sample.labels["le"])):
                cluster["buckets"].append((float(sample.labels["le"]), int(sample.value)))
    counted: dict[tuple[str, str], Counters] = {}
    for name, cluster in by_cluster.items():
        key = latency_source(name)
        if key is not None:
            counted[key] = _added(
                counted.get(key, Counters()),
                Counters(
                    n_assigned=cluster.get("assigned", 0) if is_split(name) else 0,
                    n_latencies=cluster.get("count", 0),
                    latency_sum_ms=cluster.get("sum", 0.0),
                    latency_buckets=tuple(sorted(cluster["buckets"])),
                ),
            )
    return counted


def _combined(
    hosts: dict[tuple[str, str], Counters], latencies: dict[tuple[str, str], Counters]
) -> tuple[VersionCounters, ...]:
    return tuple(
        VersionCounters(
            model=model, version=version, counters=_whole(hosts.get((model, version)), latencies.get((model, version)))
        )
        for model, version in sorted(hosts.keys() | latencies.keys())
    )


def _whole(host: Counters | None, first_choice: Counters | None) -> Counters:
    """Envoy counts for a pair of clusters what is completed; a slower version has more of its requests still in flight."""
    counted = _added(host or Counters(), first_choice or Counters())
    in_flight = counted.n_active if counted.n_assigned else 0
    return counted.model_copy(update={"n_assigned": counted.n_assigned + in_flight})


def _added(one: Counters, other: Counters) -> Counters:
    buckets = dict(one.latency_buckets)
    for bound, count in other.latency_buckets:
        buckets[bound] = buckets.get(bound, 0) + count
    return Counters(
        n_answered=one.n_answered + other.n_answered,
        n_errors=one.n_errors + other.n_errors,
        n_timeouts=one.n_timeouts + other.n_timeouts,
        n_connect_failures=one.n_connect_failures + other.n_connect_failures,
        n_active=one.n_active + other.n_active,
        n_assigned=one.n_assigned + other.n_assigned,
        n_latencies=one.n_latencies + other.n_latencies,
        latency_sum_ms=one.latency_sum_ms + other.latency_sum_ms,
        latency_buckets=tuple(sorted(buckets.items())),
    )
