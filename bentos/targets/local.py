"""One machine: replicas are processes under circus, traffic is split by an Envoy that reads files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from bentos import gateway
from bentos.counters import Counters, Snapshot, VersionCounters
from bentos.envoy_stats import read_stats
from bentos.health import probe
from bentos.replicas import Replicas, last_log_line
from bentos.routing import Routing
from bentos.targets.replica_counters import cpu_s, first_tokens, machine_cpu_s, machine_energy_j
from bentos.targets.target import Key, Sighting
from lake.ledger.rollout_state import Replica
from lake.settings import Settings


@dataclass
class LocalTarget:
    """A `Target`. Keeps what it has seen last; circus and Envoy know the rest."""

    settings: Settings
    replicas: Replicas
    _ports: dict[Key, int] = field(default_factory=dict)
    _pids: dict[Key, int] = field(default_factory=dict)
    _energy: dict[Key, float] = field(default_factory=dict)
    _before: tuple[float, float, dict[Key, float]] | None = None  # joules, CPU seconds of all, of each version

    def reconcile(self, wanted: Sequence[Replica], routed: Collection[Key] | None) -> dict[Key, Sighting]:
        pids = self.replicas.reconcile(wanted, routed)
        self._ports = {(replica.model, replica.version): replica.port for replica in wanted}
        self._pids = {key: pid for key, pid in pids.items() if pid is not None}
        return {key: Sighting(None if pid is None else str(pid), probe(self._ports[key])) for key, pid in pids.items()}

    def apply(self, routing: Routing, token: int) -> str:
        return gateway.apply(self.settings, routing, token)

    def applied_version(self) -> str | None:
        return gateway.applied_version(self.settings)

    def observe(self) -> Snapshot:
        seen = read_stats(self.settings)
        used = {key: used for key, pid in self._pids.items() if (used := cpu_s(pid)) is not None}
        energy = self._attributed(used)
        told = {(version.model, version.version): version.counters for version in seen.versions}
        return seen.model_copy(
            update={
                "versions": tuple(
                    VersionCounters(
                        model=key[0],
                        version=key[1],
                        counters=self._with_own(key, told.get(key, Counters()), used.get(key), energy.get(key)),
                    )
                    for key in sorted(told.keys() | self._pids.keys())
                )
            }
        )

    def last_words(self, model: str, version: str) -> str | None:
        return last_log_line(self.settings, model, version)

    def _with_own(self, key: Key, told: Counters, used_s: float | None, energy_j: float | None) -> Counters:
        port = self._ports.get(key)
        own = first_tokens(port) if port is not None and key in self._pids else Counters()
        return told.model_copy(
            update={
                "n_first_tokens": own.n_first_tokens,
                "first_token_buckets": own.first_token_buckets,
                "cpu_s": used_s,
                "energy_j": energy_j,
            }
        )

    def _attributed(self, used: dict[Key, float]) -> dict[Key, float]:
        """The machine's energy, given to each version by its share of the CPU time between two looks."""
        energy_j, all_s = machine_energy_j(), machine_cpu_s()
        if energy_j is None:
            return {}
        before, self._before = self._before, (energy_j, all_s, used)
        if before is None or energy_j < before[0] or all_s <= before[1]:
            return dict(self._energy)
        for key, used_s in used.items():
            share = max(0.0, used_s - before[2].get(key, used_s)) / (all_s - before[1])
            self._energy[key] = self._energy.get(key, 0.0) + share * (energy_j - before[0])
        return dict(self._energy)
