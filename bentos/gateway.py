"""Drive Envoy through files: write its bootstrap, replace clusters and routes, wait until it says that they apply."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import httpx

from bentos import loopback
from bentos.envoy_bootstrap import ROUTES_NAME, TYPE, Json, render_bootstrap
from bentos.envoy_routes import render_clusters, render_routes
from bentos.routing import Routing
from bentos.targets.target import LeaseLost
from lake.errors import TidemillError
from lake.settings import Settings

APPLY_TIMEOUT_S = 15.0
# A request is given its cluster's name with its headers, and looks the cluster up once its body was read.
ROUTED_GRACE_S = 0.5
# Three parts of a change may each take APPLY_TIMEOUT_S; who holds the routes for longer hangs.
LOCK_TIMEOUT_S = 60.0
# Envoy's names for the two subscriptions: their statistics tell versions and refusals.
ROUTES = f"http.gateway.rds.{ROUTES_NAME}"
CLUSTERS = "cluster_manager.cds"
_POLL_S = 0.02


class GatewayError(TidemillError):
    """Envoy is not there, or refused a configuration."""


def write_bootstrap(settings: Settings) -> Path:
    """Write `<home>/gateway/envoy.json` (mode 0600: it holds the API key) and return its path.

    The dynamic files are made when they are missing; those that are there stay, so that a restarted Envoy serves at
    once what it served before.
    """
    dynamic = dynamic_folder(settings)
    logs = settings.home / "logs"
    for folder in (dynamic, logs):
        folder.mkdir(parents=True, exist_ok=True)
    if not (dynamic / "cds.json").exists():
        _write(dynamic / "cds.json", _discovery("empty", []))
    if not (dynamic / "rds.json").exists():
        _write(dynamic / "rds.json", _discovery("empty", [render_routes(Routing())]))
    path = bootstrap_path(settings)
    _write(
        path,
        render_bootstrap(
            dynamic=dynamic,
            access_log=logs / "gateway-access.log",
            host=settings.host,
            port=settings.gateway_port,
            admin_port=settings.gateway_admin_port,
            api_key=settings.gateway_api_key,
        ),
    )
    return path


def bootstrap_path(settings: Settings) -> Path:
    return settings.home / "gateway" / "envoy.json"


def dynamic_folder(settings: Settings) -> Path:
    return settings.home / "gateway" / "dynamic"


def apply(settings: Settings, routing: Routing, token: int = 0, timeout_s: float = APPLY_TIMEOUT_S) -> str:
    """Make Envoy route as told; returns the version that it confirmed.

    Make before break: new clusters are added and healthy-checked first, then the routes change, and only then do
    clusters that nothing names any more go. Safe to repeat, and safe to be killed in: the next call starts over.
    `token` is the caller's lease: LeaseLost is raised, and nothing changed, when a newer one has routed before.
    Raises GatewayError when Envoy refuses a part or does not confirm it within `timeout_s`; the files are then what
    they were, so that an Envoy that is started again serves what it served before.
    """
    with _fenced(settings, token):
        return _applied(settings, routing.canonical(), timeout_s)


def _applied(settings: Settings, routing: Routing, timeout_s: float) -> str:
    dynamic = dynamic_folder(settings)
    version = f"{time.time_ns()}-{uuid.uuid4().hex[:6]}"
    wanted = {cluster["name"]: cluster for cluster in render_clusters(routing)}
    present = {cluster["name"]: cluster for cluster in _resources(dynamic / "cds.json")}
    union = {**present, **wanted}
    with loopback.client(admin_url(settings), timeout_s=2) as admin:
        if union != present:
            document = _discovery(f"{version}-add", _clusters(union))
            _offer(admin, dynamic / "cds.json", CLUSTERS, document, timeout_s, set(union))
        else:  # an apply that was killed may have left clusters that still warm
            _confirm_active(admin, set(union), timeout_s)
        routes = render_routes(routing, created=int(time.time()))
        _offer(admin, dynamic / "rds.json", ROUTES, _discovery(version, [routes]), timeout_s)
        if wanted != union:
            time.sleep(ROUTED_GRACE_S)
            document = _discovery(f"{version}-remove", _clusters(wanted))
            _offer(admin, dynamic / "cds.json", CLUSTERS, document, timeout_s)
    return version


@contextmanager
def _fenced(settings: Settings, token: int) -> Iterator[None]:
    """One caller at a time, and none with an older lease than the last one's."""
    folder = settings.home / "gateway"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "apply.lock").open("a") as lock:
        _lock(lock)
        newest = _read(folder / "lease.json").get("token", 0)
        if newest > token:
            raise LeaseLost(
                "gateway",
                expected=f"no newer lease than {token}",
                got=f"routes of lease {newest}",
                remedy="none is needed: the holder of the newer lease acts",
            )
        if newest < token:
            _write(folder / "lease.json", {"token": token})
        yield


def _lock(lock: IO[str]) -> None:
    """Raises GatewayError when another process keeps the lock: one that was stopped in the middle of its own change."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise GatewayError(
                    "gateway",
                    expected=f"the routes to be free to change within {LOCK_TIMEOUT_S:g} s",
                    got="another process in the middle of changing them",
                    remedy=f"'fuser {lock.name}' tells which; end it if it hangs",
                ) from error
        time.sleep(_POLL_S)


def _offer(
    admin: httpx.Client,
    path: Path,
    subscription: str,
    document: Json,
    timeout_s: float,
    active: Collection[str] = (),
) -> None:
    """Replace a file for Envoy to read and wait until it has; what was there comes back when Envoy does not take it.

    `active` are clusters that have to be in use by then.
    """
    n_refused = _number(admin, f"{subscription}.update_rejected")
    before = path.read_bytes() if path.exists() else None
    _write(path, document)
    try:
        _confirm(admin, subscription, document["version_info"], n_refused, timeout_s)
        _confirm_active(admin, set(active), timeout_s)
    except GatewayError:
        if before is not None:
            _write_bytes(path, before)
        raise


def admin_url(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.gateway_admin_port}"


def applied_version(settings: Settings) -> str | None:
    """The version of the routes that Envoy runs now; None when it is not there."""
    try:
        with loopback.client(admin_url(settings), timeout_s=2) as admin:
            return _text(admin, f"{ROUTES}.version_text")
    except GatewayError:
        return None


def _confirm_active(admin: httpx.Client, names: set[str], timeout_s: float) -> None:
    """Wait until every cluster has left warming (a first health check)."""
    started = time.monotonic()
    missing = names
    while missing and time.monotonic() - started < timeout_s:
        dump = _get(admin, "/config_dump", {"resource": "dynamic_active_clusters"}).json()
        missing = names - {entry["cluster"]["name"] for entry in dump.get("configs", ())}
        if missing:
            time.sleep(_POLL_S)
    if not missing:
        return
    raise GatewayError(
        "gateway",
        expected=f"the clusters {', '.join(sorted(missing))} to become active within {timeout_s:g} s",
        got="clusters that still warm",
        remedy="see <home>/logs/envoy.log",
    )


def _confirm(admin: httpx.Client, subscription: str, version: str, n_refused: int, timeout_s: float) -> None:
    """Wait until Envoy runs this version; a refusal, one more than `n_refused`, is known at once."""
    deadline = time.monotonic() + timeout_s
    found: str | None = None
    while time.monotonic() < deadline:
        found = _text(admin, f"{subscription}.version_text")
        if found == version:
            return
        if _number(admin, f"{subscription}.update_rejected") > n_refused:
            break
        time.sleep(_POLL_S)
    raise GatewayError(
        "gateway",
        expected=f"Envoy to take version {version} within {timeout_s:g} s",
        got=f"version {found}",
        remedy="see <home>/logs/envoy.log for a refused configuration; what it served before, it goes on serving",
    )


def _number(admin: httpx.Client, stat: str) -> int:
    found = re.search(r": (\d+)", _get(admin, "/stats", {"filter": f"^{re.escape(stat)}$"}).text)
    return int(found.group(1)) if found else 0


def _text(admin: httpx.Client, stat: str) -> str | None:
    """A text readout; stat lines read `name: "value"`."""
    asked = {"filter": f"^{re.escape(stat)}$", "type": "TextReadouts"}
    found = re.search(r': "([^"]*)"', _get(admin, "/stats", asked).text)
    return found.group(1) if found else None


def _get(admin: httpx.Client, path: str, query: dict[str, str]) -> httpx.Response:
    try:
        return admin.get(path, params=query).raise_for_status()
    except httpx.HTTPError as error:
        raise GatewayError(
            f"gateway at {admin.base_url}",
            expected="an answer from Envoy's admin port",
            got=f"{type(error).__name__}: {error}",
            remedy="start it with 'tidemill up'",
        ) from error


def _clusters(named: dict[str, Json]) -> list[Json]:
    kind = TYPE + "envoy.config.cluster.v3.Cluster"
    return [{"@type": kind, **named[name]} for name in sorted(named)]


def _discovery(version: str, resources: list[Json]) -> Json:
    return {"version_info": version, "resources": resources}


def _read(path: Path) -> Json:
    try:
        document: Json = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return _discovery("", [])
    return document


def _resources(path: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in found.items() if key != "@type"} for found in _read(path)["resources"]]


def _write(path: Path, document: Json) -> None:
    _write_bytes(path, json.dumps(document, indent=1).encode())


def _write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step. Mode 0600 from its first byte on. Raises GatewayError when the disk does not take it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise GatewayError(
            str(path),
            expected="a file that can be written",
            got=str(error.strerror),
            remedy="free some space; until then the gateway serves what it served before",
        ) from error
