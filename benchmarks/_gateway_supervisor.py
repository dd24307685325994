"""`python -m benchmarks._gateway_supervisor`: circus with Envoy as `tidemill up` runs it, and the rollout controller."""

from __future__ import annotations

import sys

from circus.arbiter import Arbiter
from circus.watcher import Watcher

from flows.processes import Process, services, watcher
from lake.settings import load_settings


def main() -> None:
    settings = load_settings()
    gateway = next(process for process in services(settings) if process.name == "gateway")
    controller = Process("controller", (sys.executable, "-m", "benchmarks._gateway_controller"))
    Arbiter(
        [
            Watcher.load_from_config({**watcher(settings, process), "autostart": True})
            for process in (gateway, controller)
        ],
        endpoint=settings.supervisor_endpoint,
        pubsub_endpoint=settings.supervisor_endpoint.replace(".sock", "-x.sock"),
        check_delay=1.0,
    ).start()


if __name__ == "__main__":
    main()
