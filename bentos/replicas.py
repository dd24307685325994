"""Make the running replica processes what the ledger wants, through the supervisor that `tidemill up` runs (circus)."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bentos.arbiter import ask
from bentos.serve import link_stores, replica_home, serve_command, serve_environment
from lake.ledger.rollout_state import Replica
from lake.settings import Settings

WATCHER_PREFIX = "replica-"
# Every process of a replica carries these: what it is, and a hash of how it was started.
IDENTITY = "TIDEMILL_REPLICA"
DEFINITION = "TIDEMILL_REPLICA_DEFINITION"
GRACEFUL_TIMEOUT_S = 30
_LOG_BYTES = 10_000_000

log = logging.getLogger(__name__)

Key = tuple[str, str]
# The command that serves a tag on a port of loopback.
Command = Callable[[str, int], list[str]]


@dataclass(frozen=True)
class Start:
    """How one replica is started."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    log_file: Path

    @property
    def definition(self) -> str:
        """Changes with anything that defines the process: command (with tag and port) and environment."""
        told = json.dumps([self.command, self.environment], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def watcher(self, folder: Path) -> dict[str, Any]:
        """The properties of circus' `add` command."""
        stream = {"class": "FileStream", "filename": str(self.log_file), "max_bytes": _LOG_BYTES, "backup_count": 1}
        return {
            "name": self.name,
            "cmd": self.command[0],
            "args": list(self.command[1:]),
            "start": True,
            "options": {
                "env": {**self.environment, DEFINITION: self.definition},
                "copy_env": True,
                "working_dir": str(folder),
                "respawn": True,
                # Spawns that the system refuses, not exits: circus retries those within one loop that blocks all else,
                # so endlessly would stop every other process from being watched. `reconcile` starts it again.
                "max_retry": 5,
                "warmup_delay": 0,  # circus would look after nothing else meanwhile; it spawns once a second at most
                "graceful_timeout": GRACEFUL_TIMEOUT_S,
                "stop_children": True,
                "stdout_stream": stream,
                "stderr_stream": stream,
            },
        }


def start_of(settings: Settings, replica: Replica, command: Command = serve_command) -> Start:
    """How the ledger's replica is started. Pure; `reconcile` makes its BentoML home."""
    home = replica_home(settings, replica.model, replica.version)
    return Start(
        name=watcher_name(replica.model, replica.version),
        command=tuple(command(replica.tag, replica.port)),
        environment={
            **serve_environment(settings, home),
            **replica.environment,
            IDENTITY: f"{replica.model}/{replica.version}",
        },
        log_file=log_file(settings, replica.model, replica.version),
    )


def watcher_name(model: str, version: str) -> str:
    return f"{WATCHER_PREFIX}{model}-{version}"


def log_file(settings: Settings, model: str, version: str) -> Path:
    return settings.home / "logs" / f"{watcher_name(model, version)}.log"


def last_log_line(settings: Settings, model: str, version: str) -> str | None:
    """The last words of a replica, at most 300 characters; None when it said nothing."""
    try:
        with log_file(settings, model, version).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return None
    return lines[-1].strip()[-300:] if lines else None


@dataclass
class Replicas:
    """The replica processes of one installation. Keeps only what it has last seen; the supervisor knows the rest."""

    settings: Settings
    command: Command = serve_command
    _pids: dict[str, int | None] = field(default_factory=dict)
    _ports_told: set[int] = field(default_factory=set)

    def reconcile(self, wanted: Sequence[Replica], routed: Collection[Key] | None) -> dict[Key, int | None]:
        """One step towards what is wanted; called again and again. Never waits for a process to start or to end.

        Returns the replicas whose process is the wanted one, with its pid (None while there is none). A process that
        is no longer wanted is ended unless `routed`, the versions that the gateway still knows, holds it; None when
        that is unknown, and none is ended then. Raises SupervisorError when the supervisor does not answer.
        """
        starts = {
            (replica.model, replica.version): start_of(self.settings, replica, self.command) for replica in wanted
        }
        ports = {(replica.model, replica.version): replica.port for replica in wanted}
        kept = {start.name for start in starts.values()} | {watcher_name(*key) for key in routed or ()}
        present = {name for name in self._call("list")["watchers"] if name.startswith(WATCHER_PREFIX)}
        for name in present - kept if routed is not None else ():
            self._end(name, "no longer wanted")
        current: dict[Key, int | None] = {}
        for key, start in starts.items():
            if start.name not in present:
                self._add(key, start, ports[key])
            elif self._is_current(start):
                current[key] = self._watch(key, start.name)
            else:
                self._end(start.name, "to be started anew")
        return current

    def _watch(self, key: Key, name: str) -> int | None:
        """See to it that a watcher runs; returns its process."""
        status = self._call("status", name=name)["status"]
        if status == "stopped":
            log.warning("%s has stopped; starting it again", name)
            self._call("start", name=name)
        pids = self._call("list", name=name)["pids"]
        pid = int(pids[0]) if pids else None
        if name not in self._pids or pid != self._pids[name]:
            # A parent that was killed leaves its workers, and they hold the port that its successor needs.
            self._end_strays(key, keep=pid)
            log.info("%s %s", name, "has no process" if pid is None else f"runs as process {pid}")
            self._pids[name] = pid
        return pid

    def _add(self, key: Key, start: Start, port: int) -> None:
        self._end_strays(key, keep=None)
        if _is_taken(port):
            if port not in self._ports_told:
                log.error(
                    "%s: port %d is taken by another process; end it, or set TIDEMILL_REPLICA_PORT_FIRST",
                    start.name,
                    port,
                )
                self._ports_told.add(port)
            return
        self._ports_told.discard(port)
        self._pids.pop(start.name, None)
        link_stores(self.settings.home / "bentoml", replica_home(self.settings, *key))
        start.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._call("add", **start.watcher(self.settings.home))
        log.info("%s: started on port %d: %s", start.name, port, " ".join(start.command))

    def _end(self, name: str, why: str) -> None:
        """SIGTERM first; once the process is gone, in a later call, the watcher goes.

        circus' own `stop` and `rm` would hold up every other watcher for as long as the process takes to end: nothing
        that dies meanwhile would be started again. `kill` does not; no process is wanted any more meanwhile.
        """
        if self._get(name)["numprocesses"] > 0:
            log.info("%s: ending it: %s", name, why)
            self._call("kill", name=name)
            self._call("set", name=name, options={"numprocesses": 0})
        elif not self._call("list", name=name)["pids"]:
            self._call("rm", name=name)
            self._pids.pop(name, None)
            log.info("%s: gone", name)

    def _end_strays(self, key: Key, keep: int | None) -> None:
        """SIGTERM to this replica's processes that no watcher watches; `keep` and what it has started stay."""
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                ours = environment.get(IDENTITY) == "/".join(key)
                if not ours or environment.get("TIDEMILL_HOME") != str(self.settings.home):
                    continue
                family = {process.pid, *(parent.pid for parent in process.parents())}
                if keep not in family:
                    log.warning("process %d of %s is left from an earlier start; ending it", process.pid, "/".join(key))
                    process.terminate()
            except psutil.Error:
                continue

    def _is_current(self, start: Start) -> bool:
        found = self._get(start.name)
        return bool(found["env"].get(DEFINITION) == start.definition and found["numprocesses"] > 0)

    def _get(self, name: str) -> dict[str, Any]:
        options: dict[str, Any] = self._call("get", name=name, keys=["env", "numprocesses"])["options"]
        return options

    def _call(self, command: str, **properties: Any) -> dict[str, Any]:
        return ask(self.settings, command, **properties)


def _is_taken(port: int) -> bool:
    """Whether anybody holds the port: an answer could come from there, so nothing may be started on it."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # what a server that has ended leaves is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return True
    return False
