"""`tidemill up` and `down`: everything on one machine, kept running by circus. `python -m flows.supervisor` is the arbiter."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from bentos.arbiter import SupervisorError, ask
from bentos.gateway import bootstrap_path, write_bootstrap
from flows import processes
from flows.context import Context
from flows.deployments import deploy
from flows.processes import GATEWAY, MARK, REPLICA_PREFIX, Process
from lake.errors import TidemillError
from lake.probe import probe_store
from lake.settings import Settings, load_settings

READY_TIMEOUT_S = 120.0
# A replica answers what it is at before it goes.
STOP_TIMEOUT_S = 45.0
MIN_FREE_BYTES = 2_000_000_000

Told = Callable[[str, str], None]


@dataclass(frozen=True)
class ProcessStatus:
    """One supervised process as it is now. `uptime_s` and `memory_bytes` (with children) are None when it is not up."""

    name: str
    state: str
    pid: int | None
    uptime_s: float | None
    memory_bytes: int | None
    url: str | None


def up(settings: Settings, told: Told) -> None:
    """Start what does not run yet and wait until it answers; tells each process's name and state.

    Raises TidemillError when a port is taken, the disk is full, the store refuses, or a process does not come up.
    """
    is_new_bootstrap = _prepare_home(settings)
    if _asked(settings, "list") is None:
        _end_strays(settings)
        _require_free_ports(settings)
        _start_arbiter(settings)
    services = {process.name: process for process in processes.services(settings)}
    # A store may want the webhook's answer before it starts: versitygw does.
    first = [services.pop(name) for name in ("storage", "webhook") if name in services]
    _start(settings, first)
    for process in first:
        _wait(settings, process, told)
    _open_store(settings, told)
    # The workers' imports take as long as the Prefect server's start: both at once. They wait for it on their own.
    workers = processes.workers()
    early = [process for process in workers if not process.name.startswith("worker-")]
    if is_new_bootstrap and _is_active(settings, GATEWAY):
        ask(settings, "reload", name=GATEWAY)
    _start(settings, [*services.values(), *early])
    for process in services.values():
        _wait(settings, process, told)
    told("deployments", deploy(settings))
    _start(settings, workers)
    for process in workers:
        told(process.name, "started")


def down(settings: Settings, told: Told) -> None:
    """Stop everything in the order of the data's way, so that what is in hand is finished and stored. Idempotent."""
    running = _names(settings)
    if running is not None:
        replicas = [name for name in running if name.startswith(REPLICA_PREFIX)]
        later = [process.name for process in reversed(processes.services(settings))]
        workers = [process.name for process in processes.workers()]
        for names in (workers, replicas, later):
            known = [name for name in names if name in running]
            if known:
                ask(settings, "stop", name=_any_of(known), match="regex", waiting=True, timeout_s=STOP_TIMEOUT_S)
            for name in known:
                told(name, "stopped")
        ask(settings, "quit", waiting=False)
    _end_strays(settings)


def status(settings: Settings) -> list[ProcessStatus]:
    """Everything that should run here, and the replicas that do."""
    known = [*processes.services(settings), *processes.workers()]
    running = _names(settings) or []
    urls = {process.name: process.url for process in known}
    names = [process.name for process in known] + sorted(set(running) - set(urls))
    return [_status_of(settings, name, urls.get(name)) if name in running else _absent(name) for name in names]


def main() -> None:
    """The arbiter: circus without its network faces (no TCP, no UDP discovery), its sockets in `home`."""
    from circus.arbiter import Arbiter
    from circus.watcher import Watcher

    settings = load_settings()
    wanted = [*processes.services(settings), *processes.workers()]
    watchers = [Watcher.load_from_config(processes.watcher(settings, process)) for process in wanted]
    Arbiter(
        watchers,
        endpoint=settings.supervisor_endpoint,
        pubsub_endpoint=settings.supervisor_endpoint.replace(".sock", "-x.sock"),
        check_delay=1.0,
    ).start()


def _prepare_home(settings: Settings) -> bool:
    """Folders, ledger and gateway's bootstrap. Whether the bootstrap is another one than before."""
    for folder in ("logs", "run", "gateway"):
        (settings.home / folder).mkdir(parents=True, exist_ok=True)
    (settings.home / "run").chmod(0o700)
    free_bytes = psutil.disk_usage(str(settings.home)).free
    if free_bytes < MIN_FREE_BYTES:
        raise TidemillError(
            f"disk of {settings.home}",
            expected=f"at least {MIN_FREE_BYTES / 1e9:.0f} GB free",
            got=f"{free_bytes / 1e9:.1f} GB",
            remedy="free some space, or set TIDEMILL_HOME to a folder on another disk",
        )
    Context(settings).ledger.migrate()
    before = bootstrap_path(settings).read_bytes() if bootstrap_path(settings).exists() else None
    return write_bootstrap(settings).read_bytes() != before


def _require_free_ports(settings: Settings) -> None:
    taken = {
        connection.laddr.port: connection.pid
        for connection in psutil.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr
    }
    wanted = [(process.port, process.port_setting) for process in processes.services(settings)]
    for port, setting in [*wanted, (settings.gateway_admin_port, "TIDEMILL_GATEWAY_ADMIN_PORT")]:
        if port in taken:
            pid = taken[port]
            holder = f"process {pid} ({psutil.Process(pid).name()})" if pid else "another user's process"
            raise TidemillError(
                f"port {port}",
                expected="a free port",
                got=f"{holder} listens on it",
                remedy=f"stop that process, or set {setting} to another port",
            )


def _start_arbiter(settings: Settings) -> None:
    log = settings.home / "logs" / "supervisor.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.supervisor"],
            cwd=settings.home,
            env=processes.environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C in the terminal is for the command, not for what it has started
        )
    deadline = time.monotonic() + 30
    while _asked(settings, "list") is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise TidemillError(
                "supervisor",
                expected="an answer within 30 s",
                got=(log.read_text(errors="replace").strip().splitlines() or ["silence"])[-1],
                remedy=f"see {log}",
            )
        time.sleep(0.1)


def _is_active(settings: Settings, name: str) -> bool:
    states: dict[str, str] = (_asked(settings, "status") or {}).get("statuses", {})
    return states.get(name) == "active"


def _start(settings: Settings, wanted: list[Process]) -> None:
    """Start watchers that are not active; one whose command changed since the arbiter began keeps the old one."""
    states = (_asked(settings, "status") or {}).get("statuses", {})
    for process in wanted:
        if states.get(process.name) != "active":
            ask(settings, "start", name=process.name, match="simple", waiting=True, timeout_s=30)


def _wait(settings: Settings, process: Process, told: Told) -> None:
    started = time.monotonic()
    while not _answers(process):
        if time.monotonic() - started > READY_TIMEOUT_S:
            log = settings.home / "logs" / f"{process.name}.log"
            lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
            raise TidemillError(
                f"{process.name} at {process.url}",
                expected=f"an answer within {READY_TIMEOUT_S:.0f} s",
                got=(lines or ["silence"])[-1],
                remedy=f"see {log}",
            )
        time.sleep(0.1)
    told(process.name, f"ready at {process.url}")


def _answers(process: Process) -> bool:
    try:
        answer = httpx.get(f"{process.url}{process.health_path or '/'}", timeout=2)
    except httpx.HTTPError:
        return False
    # Without a health path any answer is a sign of life: object storage refuses a request without signature.
    return answer.is_success or process.health_path is None


def _open_store(settings: Settings, told: Told) -> None:
    bucket = Context(settings).bucket
    bucket.ensure(create=settings.embedded_s3)
    told("bucket", f"s3://{bucket.name}: {probe_store(bucket)}")


def _end_strays(settings: Settings) -> None:
    """End processes of this installation that no supervisor watches: a killed arbiter leaves its children."""
    strays = [process for process in psutil.process_iter() if _is_ours(process, settings)]
    for process in strays:
        _signal(process, psutil.Process.terminate)
    _, alive = psutil.wait_procs(strays, timeout=20)
    for process in alive:
        _signal(process, psutil.Process.kill)
    psutil.wait_procs(alive, timeout=5)


def _is_ours(process: psutil.Process, settings: Settings) -> bool:
    try:
        return process.environ().get(MARK) == str(settings.home)
    except psutil.Error:
        return False


def _signal(process: psutil.Process, send: Callable[[psutil.Process], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        send(process)


def _status_of(settings: Settings, name: str, url: str | None) -> ProcessStatus:
    state = (_asked(settings, "status", name=name) or {}).get("status", "unknown")
    pids = (_asked(settings, "list", name=name) or {}).get("pids", [])
    try:
        process = psutil.Process(pids[0])
        family = [process, *process.children(recursive=True)]
        memory_bytes = sum(member.memory_info().rss for member in family)
        uptime_s = time.time() - process.create_time()
    except (IndexError, psutil.Error):
        return ProcessStatus(name, "starting" if state == "active" else str(state), None, None, None, url)
    shown = "running" if state == "active" else str(state)
    return ProcessStatus(name, shown, process.pid, uptime_s, memory_bytes, url)


def _any_of(names: list[str]) -> str:
    return f"^({'|'.join(map(re.escape, names))})$"


def _absent(name: str) -> ProcessStatus:
    return ProcessStatus(name, "stopped", None, None, None, None)


def _names(settings: Settings) -> list[str] | None:
    answer = _asked(settings, "list")
    return None if answer is None else list(answer.get("watchers", []))


def _asked(settings: Settings, command: str, **properties: Any) -> dict[str, Any] | None:
    """The arbiter's answer, or None when it does not run."""
    if not (settings.home / "run" / "supervisor.sock").exists():
        return None
    try:
        return ask(settings, command, **properties)
    except SupervisorError:
        return None


if __name__ == "__main__":
    main()
