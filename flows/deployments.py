"""Register prefect.yaml's flows with the Prefect server: once per content, as it takes a quarter of a minute."""

from __future__ import annotations

import hashlib
import subprocess

import httpx
import yaml

from flows.processes import environment, program
from lake.errors import TidemillError
from lake.settings import Settings
from lake.stage import ROOT

PREFECT_FILE = ROOT / "prefect.yaml"


def deploy(settings: Settings) -> str:
    """Make the work pools and register every deployment. Returns what was done, in words. Raises TidemillError."""
    content = PREFECT_FILE.read_text()
    wanted = yaml.safe_load(content)["deployments"]
    stamp = settings.home / "run" / "deployed"
    digest = hashlib.sha256(content.encode() + str(ROOT).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest and _registered(settings) >= len(wanted):
        return f"{len(wanted)} registered before"
    for pool in sorted({deployment["work_pool"]["name"] for deployment in wanted}):
        _make_pool(settings, pool)
    command = [program("prefect"), "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_FILE)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0 or _registered(settings) < len(wanted):
        raise TidemillError(
            str(PREFECT_FILE),
            expected=f"{len(wanted)} registered deployments",
            got=((done.stdout + done.stderr).strip().splitlines() or ["no message"])[-1],
            remedy=f"see {settings.home}/logs/prefect.log; 'prefect deploy --all' shows the whole message",
        )
    stamp.write_text(digest)
    return f"{len(wanted)} registered"


def _make_pool(settings: Settings, name: str) -> None:
    answer = httpx.post(f"{settings.prefect_api_url}/work_pools/", json={"name": name, "type": "process"}, timeout=15)
    if answer.status_code != httpx.codes.CONFLICT:  # it is there already
        answer.raise_for_status()


def _registered(settings: Settings) -> int:
    answer = httpx.post(f"{settings.prefect_api_url}/deployments/count", json={}, timeout=15)
    return int(answer.raise_for_status().json())
