"""What the gateway costs a request: one client asks a server directly and through Envoy, in turn."""

from __future__ import annotations

import time
from dataclasses import dataclass

import httpx
import numpy as np

from benchmarks._gateway_installation import MODEL, Installation

ROUND = 50


@dataclass(frozen=True)
class Overhead:
    """Milliseconds: of Envoy's CPU a request; of latency, direct and through the gateway, at p50 and p99."""

    cpu_ms: float
    direct_p50_ms: float
    direct_p99_ms: float
    gateway_p50_ms: float
    gateway_p99_ms: float


def overhead(installed: Installation, n: int) -> Overhead:
    """Over `n` requests each way, in rounds of 50. What Envoy uses while nobody asks is taken off its CPU time."""
    champion = installed.ledger.versions.champion(MODEL)
    assert champion is not None
    envoy = installed.envoy()
    direct_url = f"http://127.0.0.1:{installed.port(champion.version)}/v1/chat/completions"
    idle_began_s, idle_before = time.monotonic(), sum(envoy.cpu_times()[:2])
    time.sleep(3)
    idle = (sum(envoy.cpu_times()[:2]) - idle_before) / (time.monotonic() - idle_began_s)
    direct, through, used_s, passed_s = [], [], 0.0, 0.0
    with httpx.Client(timeout=30, headers=installed.headers) as client:
        for turn in range(2 * (n // ROUND)):
            if turn % 2:
                direct += _timed(client, direct_url)
                continue
            began_s, before = time.monotonic(), sum(envoy.cpu_times()[:2])
            through += _timed(client, installed.url)
            used_s += sum(envoy.cpu_times()[:2]) - before
            passed_s += time.monotonic() - began_s
    return Overhead(
        cpu_ms=1000 * (used_s - idle * passed_s) / len(through),
        direct_p50_ms=float(np.quantile(direct, 0.5)),
        direct_p99_ms=float(np.quantile(direct, 0.99)),
        gateway_p50_ms=float(np.quantile(through, 0.5)),
        gateway_p99_ms=float(np.quantile(through, 0.99)),
    )


def _timed(client: httpx.Client, url: str) -> list[float]:
    told = []
    for _ in range(ROUND):
        began_s = time.perf_counter()
        client.post(url, json={"model": MODEL}).raise_for_status()
        told.append(1000 * (time.perf_counter() - began_s))
    return told
