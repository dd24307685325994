"""What has been counted of each version, and the difference of two such counts: one block of evidence. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from lake.records import ClusterStats, Record

# A gateway tells its uptime in whole seconds; a snapshot's own time is taken a little earlier.
_CLOCK_SLACK_S = 3.0

# Pairs of upper bound in ms and count. Counters hold cumulative counts, blocks the count within each bucket.
Buckets = tuple[tuple[float, int], ...]


# Stands for the bound of the last bucket, which is infinite: JSON has no such number.
BEYOND_MS = 1e12


class Counters(Record):
    """One version's counters since the gateway or its process started, live and mirrored traffic together.

    `n_errors` are answers of 500 and above, resets and time-outs before an answer; 429 is an answer, not an error.
    `n_assigned` are requests that the split gave to it, whoever answered them. Buckets are cumulative; the last bound
    is infinite and left out, its count is `n_latencies`, `n_first_tokens`. `cpu_s` and `energy_j` are what its processes
    have used; None where nobody tells.
    """

    n_answered: int = 0
    n_errors: int = 0
    n_timeouts: int = 0
    n_connect_failures: int = 0
    n_active: int = 0
    n_assigned: int = 0
    n_latencies: int = 0
    latency_sum_ms: float = 0.0
    latency_buckets: Buckets = ()
    n_first_tokens: int = 0
    first_token_buckets: Buckets = ()
    cpu_s: float | None = None
    energy_j: float | None = None


class VersionCounters(Record):
    model: str
    version: str
    counters: Counters


class Snapshot(Record):
    """All counters at one time. `uptime_s` tells one life of the gateway from the next. JSON in and out."""

    taken_at: datetime
    uptime_s: int
    versions: tuple[VersionCounters, ...]

    def of(self, model: str, version: str) -> Counters:
        """Zeros for a version that has not been asked anything yet."""
        return next(
            (found.counters for found in self.versions if (found.model, found.version) == (model, version)), Counters()
        )

    def only(self, model: str, versions: Iterable[str | None]) -> Snapshot:
        """The same with these versions of one model alone."""
        kept = tuple(found for found in self.versions if found.model == model and found.version in set(versions))
        return self.model_copy(update={"versions": kept})


class Block(Record):
    """What one version did between two snapshots. Buckets hold counts of their own, not cumulative ones."""

    n_requests: int = 0
    n_errors: int = 0
    n_assigned: int = 0
    latencies: Buckets = ()
    first_tokens: Buckets = ()
    latency_sum_ms: float = 0.0
    cpu_s: float | None = None
    energy_j: float | None = None


def same_life(before: Snapshot, after: Snapshot) -> bool:
    """Whether the gateway ran on between both: else its counters began anew."""
    alive_s = after.uptime_s - before.uptime_s
    passed_s = (after.taken_at - before.taken_at).total_seconds()
    return alive_s >= 0 and abs(passed_s - alive_s) <= _CLOCK_SLACK_S


def block(before: Snapshot, after: Snapshot, model: str, version: str) -> Block | None:
    """What was counted between two snapshots; None when the gateway's counters began anew in between.

    A replica's own counters (first tokens, CPU) begin anew with its process: what they cannot tell is left out.
    """
    if not same_life(before, after):
        return None
    first, last = before.of(model, version), after.of(model, version)
    n_answered, n_errors = last.n_answered - first.n_answered, last.n_errors - first.n_errors
    if min(n_answered, n_errors, last.n_latencies - first.n_latencies) < 0:
        return None
    return Block(
        n_requests=n_answered + n_errors,
        n_errors=n_errors,
        n_assigned=max(0, last.n_assigned - first.n_assigned),
        latencies=_between(first.latency_buckets, last.latency_buckets, first.n_latencies, last.n_latencies),
        first_tokens=_between(
            first.first_token_buckets, last.first_token_buckets, first.n_first_tokens, last.n_first_tokens
        ),
        latency_sum_ms=max(0.0, last.latency_sum_ms - first.latency_sum_ms),
        cpu_s=_used(first.cpu_s, last.cpu_s),
        energy_j=_used(first.energy_j, last.energy_j),
    )


def stats_of(block: Block) -> ClusterStats:
    """The same in the few figures that people read."""
    n_latencies = sum(count for _, count in block.latencies)
    return ClusterStats(
        n_requests=block.n_requests,
        n_errors=block.n_errors,
        latency_mean_ms=block.latency_sum_ms / n_latencies if n_latencies else 0.0,
        latency_p95_ms=quantile(0.95, block.latencies),
    )


def quantile(share: float, buckets: Iterable[tuple[float, int]]) -> float:
    """Interpolate a quantile inside buckets, as Prometheus' histogram_quantile does.

    Values above the last finite bound count as that bound. 0.0 when there is nothing.
    """
    counted = sorted(buckets)
    rank, low, below = share * sum(count for _, count in counted), 0.0, 0
    for bound, count in counted:
        if count and below + count >= rank:
            return low if bound == BEYOND_MS else low + (bound - low) * (rank - below) / count
        low, below = bound, below + count
    return low


def added(one: Block, other: Block) -> Block:
    """Both blocks together. What one of them does not tell, the sum does not either."""
    return Block(
        n_requests=one.n_requests + other.n_requests,
        n_errors=one.n_errors + other.n_errors,
        n_assigned=one.n_assigned + other.n_assigned,
        latencies=_added(one.latencies, other.latencies),
        first_tokens=_added(one.first_tokens, other.first_tokens),
        latency_sum_ms=one.latency_sum_ms + other.latency_sum_ms,
        cpu_s=None if one.cpu_s is None or other.cpu_s is None else one.cpu_s + other.cpu_s,
        energy_j=None if one.energy_j is None or other.energy_j is None else one.energy_j + other.energy_j,
    )


def _added(one: Buckets, other: Buckets) -> Buckets:
    summed = dict(one)
    for bound, count in other:
        summed[bound] = summed.get(bound, 0) + count
    return tuple(sorted(summed.items()))


def _between(first: Buckets, last: Buckets, n_first: int, n_last: int) -> Buckets:
    """Counts within buckets from two cumulative ones, the infinite bucket included; empty ones are left out."""
    if n_last < n_first:
        return ()
    earlier, below, told = dict(first), 0, []
    for bound, cumulative in (*last, (BEYOND_MS, n_last)):
        so_far = cumulative - (n_first if bound == BEYOND_MS else earlier.get(bound, 0))
        if so_far > below:
            told.append((bound, so_far - below))
            below = so_far
    return tuple(told)


def _used(first: float | None, last: float | None) -> float | None:
    return last - first if first is not None and last is not None and last >= first else None
