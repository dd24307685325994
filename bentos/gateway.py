"""Drive Envoy through files: write its bootstrap, replace clusters and routes, wait until it says that they apply."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

from bentos import loopback
from bentos.envoy_bootstrap import ROUTES_NAME, TYPE, Json, render_bootstrap
from bentos.envoy_routes import render_clusters, render_routes
from bentos.routing import Routing
from lake.errors import TidemillError
from lake.settings import Settings

APPLY_TIMEOUT_S = 15.0
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


def apply(settings: Settings, routing: Routing, timeout_s: float = APPLY_TIMEOUT_S) -> str:
    """Make Envoy route as told; returns the version that it confirmed.

    Make before break: new clusters are added and healthy-checked first, then the routes change, and only then do
    clusters that nothing names any more go. Safe to repeat, and safe to be killed in: the next call starts over.
    Raises GatewayError when Envoy does not confirm a part within `timeout_s`.
    """
    routing = routing.canonical()
    dynamic = dynamic_folder(settings)
    version = f"{time.time_ns()}-{uuid.uuid4().hex[:6]}"
    wanted = {cluster["name"]: cluster for cluster in render_clusters(routing)}
    present = {cluster["name"]: cluster for cluster in _resources(dynamic / "cds.json")}
    union = {**present, **wanted}
    with loopback.client(admin_url(settings), timeout_s=2) as admin:
        if union != present:
            _write(dynamic / "cds.json", _discovery(f"{version}-add", _clusters(union)))
        # Also when nothing changed: an apply that was killed may have left clusters that still warm.
        _confirm_clusters(admin, _version(dynamic / "cds.json"), set(union), timeout_s)
        routes = render_routes(routing, created=int(time.time()))
        _write(dynamic / "rds.json", _discovery(version, [routes]))
        _confirm(admin, rf"^http\.gateway\.rds\.{ROUTES_NAME}\.version_text$", version, timeout_s)
        if wanted != union:
            _write(dynamic / "cds.json", _discovery(f"{version}-remove", _clusters(wanted)))
            _confirm(admin, r"^cluster_manager\.cds\.version_text$", f"{version}-remove", timeout_s)
    return version


def admin_url(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.gateway_admin_port}"


def applied_version(settings: Settings) -> str | None:
    """The version of the routes that Envoy runs now; None when it is not there."""
    try:
        with loopback.client(admin_url(settings), timeout_s=2) as admin:
            return _text(admin, rf"^http\.gateway\.rds\.{ROUTES_NAME}\.version_text$")
    except GatewayError:
        return None


def _confirm_clusters(admin: httpx.Client, version: str, names: set[str], timeout_s: float) -> None:
    """Wait until Envoy has taken the document and every cluster has left warming (a first health check)."""
    started = time.monotonic()
    _confirm(admin, r"^cluster_manager\.cds\.version_text$", version, timeout_s)
    missing = names
    while time.monotonic() - started < timeout_s:
        dump = _get(admin, "/config_dump", {"resource": "dynamic_active_clusters"}).json()
        missing = names - {entry["cluster"]["name"] for entry in dump.get("configs", ())}
        if not missing:
            return
        time.sleep(_POLL_S)
    raise GatewayError(
        "gateway",
        expected=f"the clusters {', '.join(sorted(missing))} to become active within {timeout_s:g} s",
        got="clusters that still warm",
        remedy="see <home>/logs/envoy.log",
    )


def _confirm(admin: httpx.Client, stat: str, version: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    found: str | None = None
    while time.monotonic() < deadline:
        found = _text(admin, stat)
        if found == version:
            return
        time.sleep(_POLL_S)
    raise GatewayError(
        "gateway",
        expected=f"Envoy to take version {version} within {timeout_s:g} s",
        got=f"version {found}",
        remedy="see <home>/logs/envoy.log for a refused configuration",
    )


def _text(admin: httpx.Client, stat: str) -> str | None:
    """A text readout; stat lines read `name: "value"`."""
    found = re.search(r': "([^"]*)"', _get(admin, "/stats", {"filter": stat, "type": "TextReadouts"}).text)
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


def _version(path: Path) -> str:
    return str(_read(path)["version_info"])


def _resources(path: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in found.items() if key != "@type"} for found in _read(path)["resources"]]


def _write(path: Path, document: Json) -> None:
    """Replace a file in one step. Mode 0600 from its first byte on."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
