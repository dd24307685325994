"""One installation for a whole campaign: store, faulty way to it, Prefect, `serve`; each comes back when it dies."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil

from flows.context import Context
from flows.processes import environment
from lake.settings import Settings, load_settings
from tests.chaos.disks import SmallDisk
from tests.chaos.inputs import Inbox
from tests.chaos.proxy import Rule
from tests.chaos.services import Supervisor
from tests.chaos.warm import Warm
from tests.ports import free_port_block, free_ports
from tests.s3 import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from tests.servers import ROOT, answers, wait_until

PRELOADED = ("tests.chaos.children:preload_client",)
LIVE_IMPORTS = ("flows.serve", "apache_beam", "great_expectations", "beam_jobs.prepare", "checks.data", "nanio.cli")
LIVE_IMPORTS += (*PRELOADED, "tests.chaos.children:preload_language")
TRAINING_IMPORTS = ("flows.tasks", "training.finetune", "training.evaluate", "training.export", "bentos.package")
TRAINING_IMPORTS += PRELOADED
PREFECT_IMPORTS = ("prefect.cli", "prefect.server.api.server")
STORE_DISK_MB, HOME_DISK_MB = 200, 400
POLL_S, SETTLE_S = 0.2, 0.3


class World:
    """What is started is started when it is first asked for, and ends with `close`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        self.store_disk = SmallDisk(self.folder / "store", STORE_DISK_MB)
        self.home_disk = SmallDisk(self.folder / "home", HOME_DISK_MB)
        self.logs = self.folder / "logs"
        self.logs.mkdir()
        self.supervisor = Supervisor()
        self._proxy_port, self._control_port, self._store_port, prefect_port, gateway, admin = free_ports(6)
        direct = load_settings(
            home=self.folder / "home",
            s3_endpoint_url=f"http://127.0.0.1:{self._store_port}",
            s3_access_key_id=ACCESS_KEY_ID,
            s3_secret_access_key=SECRET_ACCESS_KEY,
            s3_region=REGION,
            prefect_port=prefect_port,
            gateway_port=gateway,
            gateway_admin_port=admin,
            replica_port_first=free_port_block(4),
            poll_interval_s=POLL_S,
            settle_s=SETTLE_S,
        )
        self.direct: Settings = direct
        self.product = direct.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{self._proxy_port}"})
        # The harness itself asks the store directly.
        self.context = Context(direct)
        self._warm: list[Warm] = []
        self._warm_by_variables: dict[str, Warm] = {}
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
        self.environment |= environment(self.product)
        self.environment |= {"NANIO_ACCESS_KEY": ACCESS_KEY_ID, "NANIO_SECRET_KEY": SECRET_ACCESS_KEY}
        self._proxy = self._started_proxy()

    @cached_property
    def live(self) -> Warm:
        """The parent of `serve`, of Beam jobs and of the servers."""
        return self._warmed([*LIVE_IMPORTS, *PREFECT_IMPORTS], {})

    @cached_property
    def training(self) -> Warm:
        """The parent of trainers, exporters and packagers."""
        return self._warmed(TRAINING_IMPORTS, {})

    def start_store(self) -> None:
        """Object storage with an empty bucket, and the ledger."""
        arguments = ["serve", "--data-dir", str(self.folder / "store" / "data"), "--host", "127.0.0.1"]
        arguments += ["--port", str(self._store_port), "--region", REGION, "--no-access-log", "--log-level", "warning"]
        self.supervisor.add("nanio", lambda: self._forked("storage", arguments))
        self.supervisor.watch()
        self.wait_for_store()
        self.context.bucket.ensure(create=True)
        self.context.ledger.migrate()

    def start_prefect(self) -> None:
        arguments = ["server", "start", "--host", "127.0.0.1", "--port", str(self.direct.prefect_port)]
        self.supervisor.add("prefect", lambda: self._forked("prefect_server", [*arguments, "--analytics-off"]))
        self.wait_for_prefect()
        for flow, name in (("pipeline", "drop"), ("retrain", "retrain"), ("roll-out", "roll-out"), ("drift", "drift")):
            flow_id = self._prefect("flows/", {"name": flow})["id"]
            self._prefect("deployments/", {"name": name, "flow_id": flow_id})

    def start_serve(self) -> None:
        self._serving = self._warm_by_variables["{}"] = self.live
        self.supervisor.add("serve", self.fork_serve)

    def fork_serve(self) -> psutil.Process:
        return self._serving.fork("tests.chaos.children:serve", self.logs / "serve.log")

    def restart_serve(self, variables: dict[str, str]) -> None:
        """End `serve`; from now on it has these variables from its very start, as a preloaded library needs them."""
        key = json.dumps(variables)
        if key not in self._warm_by_variables:
            self._warm_by_variables[key] = self._warmed(LIVE_IMPORTS, variables)
        self._serving = self._warm_by_variables[key]
        self.supervisor.services["serve"].process.kill()

    def pid(self, name: str) -> int:
        return self.supervisor.services[name].pid

    def inbox(self, model: str) -> Inbox:
        return Inbox(self.context.bucket, model)

    def wait_for_store(self) -> None:
        wait_until("nanio listens", lambda: _listens(self._store_port), timeout_s=60)

    def wait_for_prefect(self) -> None:
        wait_until("Prefect answers", lambda: answers(f"{self.direct.prefect_api_url}/health"), timeout_s=120)

    def runs_under_way(self) -> list[dict[str, Any]]:
        """Prefect's flow runs that have not ended, as its API tells them."""
        types = ["RUNNING", "PENDING", "SCHEDULED", "CANCELLING", "PAUSED"]
        runs = self._prefect("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": types}}}, "limit": 200})
        return list(runs)

    def arm(self, rule: Rule) -> None:
        self._told({"arm": vars(rule)})

    def seen(self, release: bool = False) -> dict[str, Any]:
        """The proxy's counts since it was armed; `release` lets a held request go on its way."""
        return self._told({"release": release})

    def close(self) -> None:
        self.supervisor.close()
        for warm in self._warm:
            warm.close()
        self._proxy.kill()
        self._proxy.wait()
        for disk in (self.store_disk, self.home_disk):
            disk.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _forked(self, function: str, arguments: Sequence[str]) -> psutil.Process:
        log = self.logs / f"{function}.log"
        return self.live.fork(f"tests.chaos.children:{function}", log, arguments=list(arguments))

    def _warmed(self, modules: Sequence[str], extra: dict[str, str]) -> Warm:
        warm = Warm(modules, self.logs / "warm.log", {**self.environment, **extra})
        self._warm.append(warm)
        return warm

    def _started_proxy(self) -> subprocess.Popen[bytes]:
        ports = map(str, (self._proxy_port, self._control_port, self._store_port))
        with (self.logs / "proxy.log").open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.proxy", *ports],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        wait_until("the proxy listens", lambda: _listens(self._control_port))
        return process

    def _told(self, word: dict[str, Any]) -> dict[str, Any]:
        address = ("127.0.0.1", self._control_port)
        with socket.create_connection(address, timeout=30) as connection, connection.makefile("rwb") as lines:
            lines.write(json.dumps(word).encode() + b"\n")
            lines.flush()
            told: dict[str, Any] = json.loads(lines.readline())
        return told

    def _prefect(self, path: str, body: dict[str, Any]) -> Any:
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = httpx.post(f"{self.direct.prefect_api_url}/{path}", json=body, timeout=20)
                return answer.raise_for_status().json()
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
