"""The few calls that the command line makes to Prefect's REST API, without Prefect's seconds of import."""

from __future__ import annotations

import time
from typing import Any

import httpx

from lake.errors import TidemillError
from lake.settings import Settings

RETRY_S = 30.0


def start_run(settings: Settings, deployment: str, parameters: dict[str, Any]) -> str:
    """Start a run of `flow/deployment`; returns its URL in the UI. Raises TidemillError when the server is not there."""
    found = _call(settings, "GET", f"/deployments/name/{deployment}")
    run = _call(settings, "POST", f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
    return f"{settings.prefect_ui_url}/runs/flow-run/{run['id']}"


def recent_runs(settings: Settings, limit: int) -> list[dict[str, Any]]:
    """The newest flow runs: name, state, start and duration in seconds."""
    runs: list[dict[str, Any]] = _call(
        settings, "POST", "/flow_runs/filter", {"limit": limit, "sort": "EXPECTED_START_TIME_DESC"}
    )
    # Schedules create runs ahead of time; they say nothing about what has happened.
    return [run for run in runs if run["state_type"] != "SCHEDULED"]


def _call(settings: Settings, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    deadline = time.monotonic() + RETRY_S
    while True:
        try:
            answer = httpx.request(method, f"{settings.prefect_api_url}{path}", json=body, timeout=15)
            # On SQLite the server answers 503 while another writer holds the database: nothing was done, so ask again.
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and time.monotonic() < deadline:
                time.sleep(0.5)
                continue
            return answer.raise_for_status().json()
        except httpx.HTTPError as error:
            raise TidemillError(
                f"Prefect server {settings.prefect_api_url}",
                expected=f"an answer to {method} {path}",
                got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
                remedy="start it with 'tidemill up'; 'tidemill doctor' tests it",
            ) from error
