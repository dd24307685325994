"""What Envoy has counted per version, and the difference of two such counts as evidence for a rollout.

Requests and errors come from the counters of each replica's *host*: with a fallback cluster in front, only those say
which version really answered. Latency comes from the histograms of the clusters that have the version as first choice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bentos import loopback
from bentos.gateway import GatewayError, admin_url
from bentos.routing import latency_source, parse_cluster_name
from lake.records import ClusterStats, Record
from lake.settings import Settings

# Envoy tells its uptime in whole seconds; a snapshot's own time is taken a little earlier.
_CLOCK_SLACK_S = 3.0
_HISTOGRAM = "envoy_cluster_upstream_rq_time"


class Counters(Record):
    """One version's counters since Envoy started, live and mirrored traffic together.

    `n_errors` are answers of 500 and above, resets and time-outs before an answer; 429 is an answer, not an error.
    `latency_buckets` are pairs of upper bound in ms and cumulative count; the last bound is infinite and left out,
    its count is `n_latencies`.
    """

    n_answered: int = 0
    n_errors: int = 0
    n_timeouts: int = 0
    n_connect_failures: int = 0
    n_active: int = 0
    n_latencies: int = 0
    latency_sum_ms: float = 0.0
    latency_buckets: tuple[tuple[float, int], ...] = ()


class VersionCounters(Record):
    model: str
    version: str
    counters: Counters


class Snapshot(Record):
    """All counters at one time. `uptime_s` tells one life of Envoy from the next. JSON in and out."""

    taken_at: datetime
    uptime_s: int
    versions: tuple[VersionCounters, ...]

    def of(self, model: str, version: str) -> Counters:
        """Zeros for a version that has not been asked anything yet."""
        return next(
            (found.counters for found in self.versions if (found.model, found.version) == (model, version)), Counters()
        )


def read_stats(settings: Settings) -> Snapshot:
    """Ask Envoy's admin port. Raises GatewayError when it does not answer."""
    try:
        with loopback.client(admin_url(settings)) as admin:
            taken_at = datetime.now(UTC)
            hosts = admin.get("/clusters", params={"format": "json"}).raise_for_status().json()
            uptime = admin.get("/stats", params={"filter": r"^server\.uptime$"}).raise_for_status().text
            histograms = (
                admin.get("/stats/prometheus", params={"filter": r"^cluster\.[^.]*/[^.]*\.upstream_rq_time$"})
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


def window(before: Snapshot, after: Snapshot, model: str, version: str) -> ClusterStats | None:
    """What was counted between two snapshots; None when Envoy restarted or its counters began anew in between."""
    alive_s = after.uptime_s - before.uptime_s
    passed_s = (after.taken_at - before.taken_at).total_seconds()
    if alive_s < 0 or abs(passed_s - alive_s) > _CLOCK_SLACK_S:
        return None
    first, last = before.of(model, version), after.of(model, version)
    n_answered, n_errors = last.n_answered - first.n_answered, last.n_errors - first.n_errors
    n_latencies = last.n_latencies - first.n_latencies
    if min(n_answered, n_errors, n_latencies) < 0:
        return None
    earlier = dict(first.latency_buckets)
    buckets = [(bound, count - earlier.get(bound, 0)) for bound, count in last.latency_buckets]
    latency_sum_ms = max(0.0, last.latency_sum_ms - first.latency_sum_ms)
    return ClusterStats(
        n_requests=n_answered + n_errors,
        n_errors=n_errors,
        latency_mean_ms=latency_sum_ms / n_latencies if n_latencies else 0.0,
        latency_p95_ms=quantile(0.95, buckets, n_latencies),
    )


def quantile(share: float, buckets: Iterable[tuple[float, int]], n: int) -> float:
    """Interpolate a quantile inside cumulative buckets, as Prometheus' histogram_quantile does.

    Values above the last bound count as that bound. 0.0 when there is nothing.
    """
    rank, low, below = share * n, 0.0, 0
    if n == 0:
        return 0.0
    for bound, cumulative in buckets:
        if cumulative >= rank and cumulative > below:
            return low + (bound - low) * (rank - below) / (cumulative - below)
        low, below = bound, cumulative
    return low


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
    """Histograms from the Prometheus page, by model and version."""
    by_cluster: dict[str, dict[str, Any]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            cluster = by_cluster.setdefault(sample.labels.get("envoy_cluster_name", ""), {"buckets": []})
            if sample.name == f"{_HISTOGRAM}_sum":
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
            model=model,
            version=version,
            counters=_added(hosts.get((model, version), Counters()), latencies.get((model, version), Counters())),
        )
        for model, version in sorted(hosts.keys() | latencies.keys())
    )


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
        n_latencies=one.n_latencies + other.n_latencies,
        latency_sum_ms=one.latency_sum_ms + other.latency_sum_ms,
        latency_buckets=tuple(sorted(buckets.items())),
    )
