"""An installation with nothing but what answers clients: ledger, supervisor, Envoy, rollout controller, replicas."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks._gateway_load import FAILED, INJECTED, Asked
from bentos.arbiter import ask
from bentos.gateway import write_bootstrap
from bentos.orders import begin_rollout
from bentos.replicas import watcher_name
from flows.processes import environment
from lake.ledger import Ledger
from lake.ledger.rollout_state import RolloutState
from lake.recipe import Rollout
from lake.settings import Settings, load_settings
from tests.ports import free_port_block, free_ports
from tests.servers import ROOT, answers, process, wait_until

MODEL = "docs"
START_TIMEOUT_S = 60.0
AT_ONCE = Rollout(steps=(), retain_champion_s=0, cool_down_s=0)


@dataclass
class Load:
    """What clients met: `asked` holds (asked at, answered at, outcome), once the load has ended.

    `at_least` is how many requests there will have been by then; it may still be changed while the load runs.
    """

    began_s: float
    at_least: int
    asked: list[Asked] = field(default_factory=list)

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(outcome for _, _, outcome in self.asked)

    @property
    def failures(self) -> list[Asked]:
        """What failed for any other reason than that the server was told to fail it."""
        return [found for found in self.asked if found[2].startswith(FAILED)]

    @property
    def n_injected(self) -> int:
        return sum(outcome.startswith(INJECTED) for _, _, outcome in self.asked)

    def of(self, version: str) -> list[Asked]:
        """What a version answered, or failed as it was told to."""
        return [found for found in self.asked if found[2] in (version, f"{INJECTED}{version}")]


@dataclass
class Installation:
    settings: Settings
    ledger: Ledger
    n_clients: int
    rate: float  # requests a second, of all clients together

    @property
    def url(self) -> str:
        return f"{self.settings.gateway_url}/v1/chat/completions"

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.settings.gateway_api_key}"}

    def offer(self, plan: Rollout, *, error_rate: float = 0.0) -> RolloutState:
        """A new version of the model, offered by this plan."""
        made = self.ledger.versions.allocate(
            model=MODEL,
            training_key=f"{time.monotonic_ns()}",
            reason="drop",
            dataset_ids=("none",),
            parent=None,
        )
        return begin_rollout(
            self.settings, self.ledger,
            model=MODEL, version=made.version, tag=f"{made.version}@{error_rate}", plan=plan,
        )  # fmt: skip

    def champion(self, error_rate: float = 0.0) -> str:
        """Bring a new version to full at once; it serves alone when this returns."""
        state = self.offer(AT_ONCE, error_rate=error_rate)
        self.wait_for(state, "promoted")
        wait_until(
            f"{state.challenger} serves alone",
            lambda: [replica.version for replica in self.ledger.rollouts.wanted_replicas()] == [state.challenger],
            START_TIMEOUT_S + 60,
        )
        return state.challenger

    def state(self, rollout: RolloutState) -> RolloutState:
        found = self.ledger.rollouts.get(rollout.rollout_id)
        assert found is not None
        return found

    def wait_for(self, rollout: RolloutState, *states: str, timeout_s: float = 180.0) -> RolloutState:
        wait_until(
            f"{rollout.rollout_id} is {' or '.join(states)}",
            lambda: self.state(rollout).state in states,
            timeout_s,
        )
        return self.state(rollout)

    def wait_for_traffic(self, rollout: RolloutState) -> None:
        """Until the rollout is within a step and its routes are confirmed."""
        wait_until(
            f"{rollout.challenger} gets traffic",
            lambda: (self.state(rollout).evidence or {}).get("snapshot") is not None,
            START_TIMEOUT_S,
        )

    def reason(self, rollout: RolloutState) -> str:
        """Why the rollout ended."""
        return self.ledger.rollouts.decisions(rollout.rollout_id)[-1].reason

    def port(self, version: str) -> int:
        return next(found.port for found in self.ledger.rollouts.wanted_replicas() if found.version == version)

    def pid(self, watcher: str) -> int | None:
        """The process of a supervised program: `gateway`, `controller`, or a replica's."""
        return next(iter(ask(self.settings, "list", name=watcher)["pids"]), None)

    def envoy(self) -> psutil.Process:
        """The newest Envoy, whether the supervisor or something that it started has started it."""
        started = psutil.Process(self.pid("gateway"))
        family = [each for each in (started, *started.children(recursive=True)) if "envoy" in each.name()]
        return max(family, key=psutil.Process.create_time)

    def replica_pid(self, version: str) -> int:
        pid = self.pid(watcher_name(MODEL, version))
        assert pid is not None
        return pid

    @contextmanager
    def load(self, at_least: int = 0) -> Iterator[Load]:
        """Traffic while the block runs, and on until so many requests have been answered."""
        asked = {
            "url": self.url,
            "key": self.settings.gateway_api_key,
            "model": MODEL,
            "n_clients": self.n_clients,
            "rate": self.rate,
        }
        command = [sys.executable, "-m", "benchmarks._gateway_load", json.dumps(asked)]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as clients:
            assert clients.stdout is not None
            assert clients.stdout.readline() == "begun\n"
            load = Load(time.monotonic(), at_least)
            try:
                yield load
            finally:
                told, _ = clients.communicate(f"{load.at_least}\n", timeout=600)
        load.asked = [(began_s, ended_s, outcome) for began_s, ended_s, outcome in json.loads(told)]

    def flags(self) -> Counter[str]:
        """What Envoy's access log says of answers of 500 and above: status, flags, detail and cluster."""
        found: Counter[str] = Counter()
        for line in (self.settings.home / "logs" / "gateway-access.log").read_text().splitlines():
            entry = json.loads(line)
            if entry["status"] >= 500 or entry["status"] == 0:
                found[" ".join(str(entry[name]) for name in ("status", "flags", "detail", "cluster"))] += 1
        return found


@contextmanager
def installation(folder: Path, n_clients: int = 8, rate: float = 400.0) -> Iterator[Installation]:
    """Started, with one champion that serves."""
    public, admin = free_ports(2)
    settings = load_settings(
        home=folder / "home", gateway_port=public, gateway_admin_port=admin, replica_port_first=free_port_block(100)
    )
    for name in ("logs", "run"):
        (settings.home / name).mkdir(parents=True, exist_ok=True)
    ledger = Ledger(settings)
    ledger.migrate()
    write_bootstrap(settings)
    command = [sys.executable, "-m", "benchmarks._gateway_supervisor"]
    try:
        with process(command, settings.home / "logs" / "supervisor.log", environment(settings)):
            wait_until("the gateway answers", lambda: answers(f"{settings.gateway_url}/healthz"), START_TIMEOUT_S)
            made = Installation(settings, ledger, n_clients, rate)
            made.champion()
            yield made
    finally:
        _end_all(settings)
        ledger.engine.dispose()


def _end_all(settings: Settings) -> None:
    """What a supervisor that did not end in time has left."""
    for each in psutil.process_iter():
        try:
            if each.environ().get("TIDEMILL_HOME") == str(settings.home):
                each.kill()
        except psutil.Error:
            continue


def ask_once(installed: Installation, client: httpx.Client) -> str:
    """The version that answers now."""
    answer = client.post(installed.url, json={"model": MODEL}, headers=installed.headers)
    return str(answer.raise_for_status().json()["tag"])
