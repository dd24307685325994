"""From a recipe's choice of a runner to Beam's pipeline options, refusing early what could only fail late.

Beam waits for minutes, or for ever, for a cluster that does not answer, a job server of another Flink version, and
workers that cannot reach the store. All three are cheap to see before the job is built.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import version
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from lake.bucket import BucketAddress
from lake.errors import TidemillError
from lake.folder import FolderAddress
from lake.recipe.runner import Runner

JAR_VARIABLE = "TIDEMILL_FLINK_JOB_SERVER_JAR"
ANSWERS_WITHIN_S = 5.0

# The bare DirectRunner of this Beam version tries to download a binary.
LOCAL = ("--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",)


def runner_options(runner: Runner, address: BucketAddress | FolderAddress) -> tuple[str, ...]:
    """Beam pipeline options that run the job as `runner` says on the store at `address`.

    Raises TidemillError when the cluster or the job service does not answer, when the Flink job server is missing or of
    another version than the cluster, and when the workers could not reach the store.
    """
    options = _OPTIONS[runner.name](runner)
    if runner.name not in ("local", "dataflow"):
        options = (*options, *_environment(runner))
    if runner.name != "local" and not _workers_are_here(runner):
        _require_shared_store(runner, address)
    return (*options, *runner.options)


def _local(runner: Runner) -> tuple[str, ...]:
    """One process: this one. More: that many beside it."""
    if runner.workers == 1:
        return LOCAL
    return (*LOCAL, f"--direct_num_workers={runner.workers}", "--direct_running_mode=multi_processing")


def _flink(runner: Runner) -> tuple[str, ...]:
    if runner.flink_master:
        _require_room(runner, flink_overview(runner.flink_master))
    parallelism = f"--parallelism={runner.workers}"
    if runner.job_endpoint:
        return (*_portable(runner), parallelism)
    if threading.current_thread() is not threading.main_thread():  # Beam sets a signal handler beside its job server
        raise TidemillError(
            "runner flink",
            expected="to be started by the main thread of a process, as 'tidemill prepare' does",
            got=f"thread {threading.current_thread().name}",
            remedy="run a job server beside the cluster, and set runner.job_endpoint to its address",
        )
    return (
        "--runner=FlinkRunner",
        f"--flink_master={runner.flink_master}",
        f"--flink_version={runner.flink_version}",
        f"--flink_job_server_jar={job_server_jar(runner.flink_version)}",
        parallelism,
    )


def _portable(runner: Runner) -> tuple[str, ...]:
    """A job service of any make: Beam's Spark job server, Prism, a Flink job server run beside the cluster."""
    host, port = _host_and_port(runner.job_endpoint or "")
    try:
        socket.create_connection((host, port), timeout=ANSWERS_WITHIN_S).close()
    except OSError as error:
        raise TidemillError(
            f"runner.job_endpoint {runner.job_endpoint}",
            expected="a Beam job service",
            got=type(error).__name__ if not error.strerror else error.strerror,
            remedy="start the job server, or correct the address",
        ) from None
    return "--runner=PortableRunner", f"--job_endpoint={host}:{port}"


def _dataflow(runner: Runner) -> tuple[str, ...]:
    """Project, region, staging folders and the workers' image are among `runner.options`."""
    return "--runner=DataflowRunner", f"--max_num_workers={runner.workers}"


_OPTIONS: Mapping[str, Callable[[Runner], tuple[str, ...]]] = {
    "local": _local,
    "flink": _flink,
    "spark": _portable,
    "portable": _portable,
    "dataflow": _dataflow,
}


def _environment(runner: Runner) -> tuple[str, ...]:
    """What runs the Python workers. Loopback is this process: nothing on another machine can reach it."""
    if runner.environment == "loopback" and not _workers_are_here(runner):
        raise TidemillError(
            f"runner {runner.name}, environment loopback",
            expected="the cluster on this machine",
            got=runner.flink_master or runner.job_endpoint or "",
            remedy="set runner.environment to process, external or docker, with its runner.environment_config",
        )
    config = () if runner.environment_config is None else (f"--environment_config={runner.environment_config}",)
    return (f"--environment_type={runner.environment.upper()}", *config)


def flink_overview(master: str) -> dict[str, Any]:
    """What a JobManager says of its cluster (`GET /overview`): task managers, slots, jobs, `flink-version`."""
    url = master if "://" in master else f"http://{master}"
    try:
        answer = httpx.get(f"{url}/overview", timeout=ANSWERS_WITHIN_S)
        answer.raise_for_status()
        overview = answer.json()
        overview["flink-version"], overview["slots-total"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise TidemillError(
            f"runner.flink_master {master}",
            expected=f"the REST API of a Flink JobManager to answer within {ANSWERS_WITHIN_S:g} s",
            got=f"{type(error).__name__} {error}".strip(),
            remedy="start the cluster, or correct the address: the port is rest.port, 8081 unless it is set",
        ) from None
    return dict(overview)


def _require_room(runner: Runner, overview: Mapping[str, Any]) -> None:
    """The cluster is of the version that the job server is for, and has as many slots as the job asks for."""
    where, found = f"runner.flink_master {runner.flink_master}", str(overview["flink-version"])
    if found.split(".")[:2] != runner.flink_version.split("."):
        raise TidemillError(
            where,
            expected=f"Flink {runner.flink_version}",
            got=found,
            remedy="set runner.flink_version to the cluster's, and use that version's job server",
        )
    if overview["slots-total"] < runner.workers:
        raise TidemillError(
            where,
            expected=f"at least {runner.workers} task slots",
            got=f"{overview['slots-total']} on {overview['taskmanagers']} task managers",
            remedy="start more task managers, or lower runner.workers",
        )


def job_server_jar(flink_version: str) -> Path:
    """Beam's job server for a Flink version: where TIDEMILL_FLINK_JOB_SERVER_JAR says, or in Maven's local repository.

    Raises TidemillError, with the command that brings it, when it is in neither.
    """
    artifact, beam = f"beam-runners-flink-{flink_version}-job-server", version("apache-beam")
    told = os.environ.get(JAR_VARIABLE)
    jar = Path(told) if told else maven_repository() / "org/apache/beam" / artifact / beam / f"{artifact}-{beam}.jar"
    if jar.is_file():
        return jar
    raise TidemillError(
        JAR_VARIABLE if told else "runner flink",
        expected=f"Beam's job server for Flink {flink_version}",
        got=f"no file {jar}",
        remedy=f"mvn dependency:get -Dtransitive=false -Dartifact=org.apache.beam:{artifact}:{beam}, or set "
        f"{JAR_VARIABLE} to the jar, or runner.job_endpoint to a job server that runs elsewhere",
    )


def maven_repository() -> Path:
    """Where Maven keeps what it has fetched."""
    return Path.home() / ".m2" / "repository"


def _require_shared_store(runner: Runner, address: BucketAddress | FolderAddress) -> None:
    """Workers on other machines reach the store by the address that they are given."""
    if isinstance(address, FolderAddress):
        is_shared, got = runner.shared_folder, f"the folder {address.name} of this machine"
        remedy = "set runner.shared_folder if it is mounted everywhere, or use an S3 store"
    else:
        url = address.endpoint_url
        is_shared, got = url is None or not _is_loopback(url), f"{url}, which every machine takes for itself"
        remedy = "use an S3 server at an address that the workers' machines can reach"
    if not is_shared:
        raise TidemillError(
            f"runner {runner.name}", expected="a store that workers on other machines can reach", got=got, remedy=remedy
        )


def _workers_are_here(runner: Runner) -> bool:
    """Whether the cluster is on this machine, and so, for all that can be told, its workers."""
    at = runner.flink_master or runner.job_endpoint
    return runner.name != "dataflow" and at is not None and _is_here(at)


def _is_here(address: str) -> bool:
    """Whether the host is this machine. Only an address of its own can be bound."""
    found = _resolved(address)
    if found is None:
        return False
    try:
        with socket.socket(socket.AF_INET6 if found.version == 6 else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((str(found), 0))
    except OSError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    found = _resolved(address)
    return found is not None and found.is_loopback


def _resolved(address: str) -> IPv4Address | IPv6Address | None:
    """IP address of a URL's or `host:port`'s host; None when its name is not known here."""
    host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    try:
        return ip_address(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return None


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = re.sub(r"^https?://", "", address).rpartition(":")
    return host, int(port)
