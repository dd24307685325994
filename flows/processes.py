"""What runs on one machine: every process with its command, its environment, and how to tell that it answers. Pure."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bentos.gateway import bootstrap_path
from lake.settings import Settings
from lake.stage import ROOT

# Every process that was started for an installation carries its home under this name: strays are found by it.
MARK = "TIDEMILL_SUPERVISED"
REPLICA_PREFIX = "replica-"
GATEWAY = "gateway"


@dataclass(frozen=True)
class Process:
    """One process. `url` is where it answers, `port_setting` the variable that moves its port (None: it listens on none)."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    port: int | None = None
    port_setting: str | None = None
    health_path: str | None = None
    host: str = "127.0.0.1"

    @property
    def url(self) -> str | None:
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host  # noqa: S104  (nobody is asked there)
        return f"http://{host}:{self.port}" if self.port else None


def services(settings: Settings) -> list[Process]:
    """What the others and the stores need: object storage unless it is elsewhere, Prefect, the gateway, the webhook.

    And the status page, which needs the ledger alone.
    """
    storage = Process(
        name="storage",
        command=(
            program("nanio"), "serve", "--data-dir", str(settings.home / "s3"), "--host", "127.0.0.1",
            "--port", str(settings.s3_port), "--region", settings.s3_region, "--no-access-log",
        ),
        environment={
            "NANIO_ACCESS_KEY": settings.access_key_id or "",
            "NANIO_SECRET_KEY": settings.secret_access_key or "",
        },
        port=settings.s3_port,
        port_setting="TIDEMILL_S3_PORT",
    )  # fmt: skip
    prefect = Process(
        name="prefect",
        command=(
            program("prefect"), "server", "start", "--host", "127.0.0.1",
            "--port", str(settings.prefect_port), "--analytics-off",
        ),
        port=settings.prefect_port,
        port_setting="TIDEMILL_PREFECT_PORT",
        health_path="/api/health",
    )  # fmt: skip
    gateway = Process(
        name=GATEWAY,
        command=(
            sys.executable, "-m", "bentos.envoy_process", str(settings.home / "gateway" / "base-id"),
            program("envoy"), "-c", str(bootstrap_path(settings)), "--concurrency", "2",
            "-l", "warning", "--log-path", str(settings.home / "logs" / "envoy.log"),
        ),
        port=settings.gateway_port,
        port_setting="TIDEMILL_GATEWAY_PORT",
        health_path="/healthz",
    )  # fmt: skip
    return [
        *([storage] if settings.embedded_s3 else []),
        prefect,
        gateway,
        _status(settings),
        *([_webhook(settings)] if settings.webhook_port else []),
    ]


def workers() -> list[Process]:
    """What works once the services answer: watcher and light flows, the pools' workers, the rollout controller."""
    return [
        Process("controller", (sys.executable, "-m", "bentos.controller")),
        Process("serve", (sys.executable, "-m", "flows.serve")),
        _pool_worker("training", limit=1),
        _pool_worker("light", limit=4),
    ]


def environment(settings: Settings) -> dict[str, str]:
    """What every process gets on top of the caller's environment. Nothing phones home, no hub is asked."""
    return {
        **os.environ,
        **settings.environment(),
        MARK: str(settings.home),
        "PREFECT_API_URL": settings.prefect_api_url,
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        # Workers look for runs every 10 s by default: too long between a drop that is checked and its training.
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_LOGGING_COLORS": "false",
        # A worker's flow run imports from the project's folder, wherever the worker was started.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "BENTOML_DO_NOT_TRACK": "True",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def watcher(settings: Settings, process: Process) -> dict[str, Any]:
    """A process in circus' words. It does not start by itself: `up` starts what is ready to be started."""
    return {
        "name": process.name,
        "cmd": process.command[0],
        "args": list(process.command[1:]),
        "env": {**environment(settings), **process.environment},
        "working_dir": str(ROOT),
        "autostart": False,
        "respawn": True,
        # Spawns that the system refuses, not exits: circus retries those in one loop that blocks everything else.
        "max_retry": 5,
        "warmup_delay": 0,  # circus would look after nothing else meanwhile; it spawns once a second at most
        "graceful_timeout": 30,
        "stop_children": True,
        "send_hup": process.name == GATEWAY,  # circus' `reload` then asks it to replace Envoy without a gap
        "stdout_stream": _log(settings, process.name),
        "stderr_stream": _log(settings, process.name),
    }


def program(name: str) -> str:
    """A command of this very environment, whether or not it is activated."""
    return str(Path(sys.executable).parent / name)


def _webhook(settings: Settings) -> Process:
    return Process(
        name="webhook",
        command=(sys.executable, "-m", "flows.webhook"),
        port=settings.webhook_port,
        port_setting="TIDEMILL_WEBHOOK_PORT",
        health_path="/healthz",
        host=settings.webhook_host,
    )


def _status(settings: Settings) -> Process:
    return Process(
        name="status",
        command=(sys.executable, "-m", "flows.status_server"),
        port=settings.status_port,
        port_setting="TIDEMILL_STATUS_PORT",
        health_path="/healthz",
    )


def _pool_worker(pool: str, limit: int) -> Process:
    return Process(
        name=f"worker-{pool}",
        command=(
            program("prefect"), "worker", "start", "--pool", pool, "--type", "process",
            "--name", pool, "--limit", str(limit), "--install-policy", "never",
        ),
    )  # fmt: skip


def _log(settings: Settings, name: str) -> dict[str, Any]:
    path = settings.home / "logs" / f"{name}.log"
    return {"class": "FileStream", "filename": str(path), "max_bytes": 20_000_000, "backup_count": 1}
