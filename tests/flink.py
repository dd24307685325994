"""A real standalone Flink cluster for tests: one JobManager and two TaskManagers, each a Java process on loopback.

The jars are fetched by Maven once, into the user's cache, by `tests/flink_cluster/pom.xml`, and checked against the hashes
beside it. Where there is no Java, no Maven or no network, the tests are skipped and say why. Beam's job server is looked
for where the product looks for it, and asked of Maven when it is not there.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from beam_jobs.runners import job_server_jar
from lake.errors import TidemillError
from tests.ports import free_ports

VERSION: Final = "1.20"
PINS = Path(__file__).parent / "flink_cluster"
READY_WITHIN_S = 90.0  # 10 s on a quiet machine
FETCHED_WITHIN_S = 240.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# As Flink's own scripts start Java 17: what its serializers look into.
_OPENED = ["lang", "net", "io", "nio", "lang.reflect", "text", "time", "util", "util.concurrent"]
_OPENED += ["util.concurrent.atomic", "util.concurrent.locks"]
_JAVA = [
    "java", "-Xmx512m", "-XX:MaxMetaspaceSize=384m", "-XX:MaxDirectMemorySize=256m", "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC", "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED", "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED),
]  # fmt: skip
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
# Flink wants the sizes of a TaskManager's pools told when its own scripts do not work them out.
_POOLS = {
    "taskmanager.cpu.cores": 1.0,
    "taskmanager.memory.framework.heap.size": "128mb",
    "taskmanager.memory.framework.off-heap.size": "128mb",
    "taskmanager.memory.jvm-metaspace.size": "384mb",
    "taskmanager.memory.jvm-overhead.min": "64mb",
    "taskmanager.memory.jvm-overhead.max": "64mb",
    "taskmanager.memory.task.heap.size": "384mb",
    "taskmanager.memory.task.off-heap.size": "0",
    "taskmanager.memory.managed.size": "64mb",
    "taskmanager.memory.network.min": "64mb",
    "taskmanager.memory.network.max": "64mb",
}


@dataclass
class FlinkCluster:
    """`master` is HOST:PORT of the REST API. The processes end with the block that started them."""

    master: str
    folder: Path
    jars: Path
    job_manager: subprocess.Popen[bytes] | None = None
    task_managers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)  # by the id that the REST API shows

    def get(self, path: str) -> Any:
        """What the REST API answers."""
        answer = httpx.get(f"http://{self.master}{path}", timeout=10)
        answer.raise_for_status()
        return answer.json()

    def start_task_manager(self) -> str:
        """One more TaskManager of one slot, in a process of its own. Gives its id."""
        name = f"task-manager-{len(self.task_managers)}"
        given = {**_POOLS, "taskmanager.resource-id": name}
        options = [argument for option, value in given.items() for argument in ("-D", f"{option}={value}")]
        self.task_managers[name] = self._start(name, _TASK_MANAGER, *options)
        return name

    def start_job_manager(self) -> None:
        self.job_manager = self._start("job-manager", _JOB_MANAGER)

    def await_slots(self, n: int, within_s: float = READY_WITHIN_S) -> None:
        """Return when so many slots are there, no more and no fewer."""
        deadline, found = time.monotonic() + within_s, None
        while time.monotonic() < deadline:
            try:
                found = self.get("/overview")["slots-total"]
            except httpx.HTTPError as error:
                found = type(error).__name__
            if found == n:
                return
            time.sleep(0.1)
        logs = "\n".join(path.read_text()[-1_500:] for path in sorted(self.folder.glob("*.log")))
        raise RuntimeError(f"{n} slots expected within {within_s:g} s, got {found}:\n{logs}")

    def stop(self) -> None:
        started = [*self.task_managers.values(), *([self.job_manager] if self.job_manager else [])]
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=15)

    def _start(self, name: str, entry_point: str, *options: str) -> subprocess.Popen[bytes]:
        command = [*_JAVA, "-cp", f"{self.jars}/*", entry_point, "--configDir", str(self.folder), *options]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # one system call in the child
            )


@contextmanager
def flink(folder: Path, n_task_managers: int = 2) -> Iterator[FlinkCluster]:
    """Run a cluster with its files in `folder`. Skips the test with the reason where it cannot be had."""
    jars = flink_jars()
    rest_port, rpc_port = free_ports(2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(json.dumps(_configuration(folder, rest_port, rpc_port)))  # JSON is YAML
    cluster = FlinkCluster(f"127.0.0.1:{rest_port}", folder, jars)
    try:
        cluster.start_job_manager()
        for _ in range(n_task_managers):
            cluster.start_task_manager()
        cluster.await_slots(n_task_managers)
        yield cluster
    finally:
        cluster.stop()


def _configuration(folder: Path, rest_port: int, rpc_port: int) -> Mapping[str, Any]:
    """Everything on loopback; a TaskManager that dies is missed within seconds, and its job restarted."""
    return {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.rpc.port": rpc_port,
        "jobmanager.bind-host": "127.0.0.1",
        "jobmanager.memory.process.size": "1024m",
        "taskmanager.host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        "taskmanager.numberOfTaskSlots": 1,
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": rest_port,
        "heartbeat.interval": 1_000,
        "heartbeat.timeout": 15_000,
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": 5,
        "restart-strategy.fixed-delay.delay": "1 s",
        "slot.request.timeout": 120_000,
        "cluster.evenly-spread-out-slots": True,
        "io.tmp.dirs": str(folder),
    }


def flink_jars() -> Path:
    """The folder of Flink's jars. Skips the test with the reason when they cannot be had."""
    found = fetched_jars()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@functools.cache
def fetched_jars() -> Path | str:
    if shutil.which("java") is None:
        return "Flink cannot be run: no 'java' on the PATH"
    pinned = (PINS / "SHA256SUMS").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidemill-tests"
    jars = cache / f"flink-{hashlib.sha256(pinned).hexdigest()[:16]}"
    if jars.is_dir():
        return jars
    partial = cache / f"{jars.name}.{os.getpid()}"
    failed = _maven(
        "dependency:copy-dependencies",
        "-f",
        str(PINS / "pom.xml"),
        "-DincludeScope=runtime",
        f"-DoutputDirectory={partial}",
    )
    if failed:
        return f"Flink cannot be fetched: {failed}"
    expected = {name: digest for digest, name in (line.split() for line in pinned.decode().splitlines())}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in partial.iterdir()}
    if found != expected:
        shutil.rmtree(partial)
        raise RuntimeError(
            f"Flink's jars are not those of {PINS / 'SHA256SUMS'}: {sorted(found.items() ^ expected.items())}"
        )
    if not jars.is_dir():  # two test runs may fetch at once
        partial.rename(jars)
    return jars


def flink_job_server() -> Path:
    """Beam's job server for this Flink. Skips the test with the reason when it cannot be had."""
    found = found_job_server()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@functools.cache
def found_job_server() -> Path | str:
    try:
        return job_server_jar(VERSION)
    except TidemillError as error:
        missing = error
    # No hash of ours: the version follows Beam's, and Maven is told to insist on the repository's own.
    artifact = missing.remedy.split("-Dartifact=")[1].split(",")[0]
    failed = _maven("dependency:get", "-Dtransitive=false", f"-Dartifact={artifact}")
    if failed:
        return f"Beam's Flink job server cannot be fetched: {artifact}: {failed}"
    return job_server_jar(VERSION)


def _maven(*arguments: str) -> str | None:
    """Run Maven; gives the reason in a line when that failed."""
    if shutil.which("mvn") is None:
        return "no 'mvn' on the PATH"
    command = ["mvn", "--batch-mode", "--quiet", "--strict-checksums", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCHED_WITHIN_S, check=False)
    except subprocess.TimeoutExpired:
        return f"Maven took longer than {FETCHED_WITHIN_S:g} s"
    if done.returncode == 0:
        return None
    reasons = [line for line in done.stdout.splitlines() if "Could not" in line or "Couldn't" in line]
    return "Maven does not get it" if reasons else f"Maven ended with status {done.returncode}"


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
