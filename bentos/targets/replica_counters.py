"""What a replica on this machine can tell of itself: how soon its first tokens came, and what its processes have used."""

from __future__ import annotations

from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from bentos import loopback
from bentos.counters import Counters

HISTOGRAM = "tidemill_first_token_seconds"
SCRAPE_TIMEOUT_S = 1.0
# Where Linux tells the energy that each processor package has used, in microjoules; readable by root alone, and
# absent on most virtual machines.
RAPL = Path("/sys/class/powercap")


def first_tokens(port: int) -> Counters:
    """The histogram of first tokens from a replica's `/metrics`; nothing when it does not answer or tells none."""
    try:
        with loopback.client(f"http://127.0.0.1:{port}", SCRAPE_TIMEOUT_S) as client:
            text = client.get("/metrics").raise_for_status().text
        return parsed_first_tokens(text)
    except (httpx.HTTPError, ValueError):
        return Counters()


def parsed_first_tokens(text: str) -> Counters:
    """Cumulative buckets, bounds in ms, from a page in Prometheus' format. Several processes of a replica are summed."""
    buckets: dict[float, int] = {}
    n = 0
    for family in text_string_to_metric_families(text):
        if family.name != HISTOGRAM:
            continue
        for sample in family.samples:
            if sample.name.endswith("_bucket") and sample.labels["le"] != "+Inf":
                bound_ms = round(1000 * float(sample.labels["le"]), 3)
                buckets[bound_ms] = buckets.get(bound_ms, 0) + int(sample.value)
            elif sample.name.endswith("_count"):
                n += int(sample.value)
    return Counters(n_first_tokens=n, first_token_buckets=tuple(sorted(buckets.items())))


def cpu_s(pid: int) -> float | None:
    """CPU seconds that a process and all it has started have used so far; None when it is gone."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(sum(member.cpu_times()[:2]) for member in family)
    except psutil.Error:
        return None


def machine_energy_j(folder: Path = RAPL) -> float | None:
    """Joules that the processor packages have used since some time before; None where the machine does not tell."""
    told = []
    for package in sorted(folder.glob("intel-rapl:[0-9]*")):
        if package.name.count(":") > 1:  # a part of a package, which is in its sum
            continue
        try:
            told.append(int((package / "energy_uj").read_text()) / 1e6)
        except (OSError, ValueError):
            return None
    return sum(told) if told else None


def machine_cpu_s() -> float:
    """CPU seconds that all processes have used together."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))
