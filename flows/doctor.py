"""`tidemill doctor`: what is wrong on this machine, and what to do about it. Every look is bounded and changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import psutil
from botocore.exceptions import BotoCoreError, ClientError

from bentos.gateway import applied_version
from flows import sqs, supervisor
from flows.context import Context
from flows.processes import services
from lake.errors import TidemillError
from lake.ledger.engine import shown
from lake.probe import probe_store
from lake.settings import Settings

MIN_AVAILABLE_BYTES = 3_000_000_000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `remedy` is None when it is in order."""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None


def diagnose(settings: Settings) -> list[Finding]:
    """Look at the machine, the store, the ledger, the recipes and every process. Never raises."""
    context = Context(settings)
    looks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("machine", lambda: _machine(settings)),
        ("object storage", lambda: _store(context)),
        ("ledger", lambda: _ledger(context)),
        ("recipes", lambda: _recipes(context)),
        ("processes", lambda: _processes(settings)),
        ("Prefect", lambda: _prefect(settings)),
        ("gateway", lambda: _gateway(settings)),
        ("alarms", lambda: _alarms(context)),
        ("events", lambda: _events(settings)),
        ("drops and versions", lambda: _work(context)),
    ]
    return [finding for name, look in looks for finding in _safely(name, look)]


def _alarms(context: Context) -> list[Finding]:
    raised = context.ledger.alarms.open()
    if not raised:
        return [Finding("alarms", True, "none")]
    return [
        Finding(f"alarm: {alarm.subject}", False, f"{alarm.message} (since {alarm.raised_at:%Y-%m-%d %H:%M:%S})",
                "'tidemill rollout watch' shows what is under way")
        for alarm in raised
    ]  # fmt: skip


def _safely(name: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except TidemillError as error:
        return [Finding(name, False, f"{error.where}: expected {error.expected}, got {error.got}", error.remedy)]
    except Exception as error:  # a doctor that falls ill helps no one
        return [Finding(name, False, f"{type(error).__name__}: {error}", "'tidemill up', then look again")]


def _machine(settings: Settings) -> list[Finding]:
    disk = psutil.disk_usage(str(_nearest_folder(settings)))
    memory = psutil.virtual_memory()
    supported = (3, 11) <= sys.version_info[:2] < (3, 13)
    return [
        Finding(
            "python",
            supported,
            f"{sys.version.split()[0]} at {sys.executable}",
            None if supported else "use Python 3.11 or 3.12: make .venv PYTHON=python3.11",
        ),
        Finding(
            "disk",
            disk.free >= supervisor.MIN_FREE_BYTES,
            f"{disk.free / 1e9:.1f} GB free at {settings.home}",
            None if disk.free >= supervisor.MIN_FREE_BYTES else "free some space, or set TIDEMILL_HOME elsewhere",
        ),
        Finding(
            "memory",
            memory.available >= MIN_AVAILABLE_BYTES,
            f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB available",
            None if memory.available >= MIN_AVAILABLE_BYTES else "training and two replicas need about 5 GB together",
        ),
    ]


def _store(context: Context) -> list[Finding]:
    context.bucket.ensure(create=False)
    return [
        Finding(
            "object storage",
            True,
            f"s3://{context.bucket.name} at {context.settings.s3_url}: {probe_store(context.bucket)}",
        )
    ]


def _ledger(context: Context) -> list[Finding]:
    current, newest = context.ledger.revision()
    detail = f"revision {current} of {newest}, {shown(context.ledger.engine.url)}"
    return [Finding("ledger", current == newest, detail, None if current == newest else "'tidemill up' migrates it")]


def _recipes(context: Context) -> list[Finding]:
    names = context.models()
    if not names:
        return [Finding("recipes", True, "none yet; 'tidemill models add RECIPE' registers one")]
    findings = []
    for name in names:
        findings += _safely(f"recipe {name}", lambda name=name: [_recipe(context, name)])  # type: ignore[misc]
    return findings


def _recipe(context: Context, name: str) -> Finding:
    context.recipe(name)
    return Finding(f"recipe {name}", True, "valid")


def _processes(settings: Settings) -> list[Finding]:
    return [
        Finding(
            process.name,
            process.state == "running",
            f"{process.state}, pid {process.pid}" if process.pid else process.state,
            None if process.state == "running" else f"'tidemill up'; see {settings.home}/logs/{process.name}.log",
        )
        for process in supervisor.status(settings)
    ]


def _prefect(settings: Settings) -> list[Finding]:
    answer = httpx.post(f"{settings.prefect_api_url}/deployments/count", json={}, timeout=10)
    count = int(answer.raise_for_status().json())
    return [
        Finding("Prefect", count > 0, f"{count} deployments", None if count else "'tidemill up' registers prefect.yaml")
    ]


def _gateway(settings: Settings) -> list[Finding]:
    version = applied_version(settings)
    return [
        Finding(
            "gateway", version is not None, f"routes version {version}", None if version else "'tidemill up' starts it"
        )
    ]


def _events(settings: Settings) -> list[Finding]:
    """The ways by which a store may wake the watcher. Without them it looks by itself, only a little later."""
    findings = []
    if settings.sqs_queue_url:
        findings += _safely("event queue", lambda: [_queue(settings)])
    if settings.webhook_port:
        findings += _safely("webhook", lambda: [_webhook(settings)])
    return findings


def _queue(settings: Settings) -> Finding:
    try:
        redriven = sqs.has_redrive_policy(sqs.queue_client(settings), settings.sqs_queue_url)
    except (BotoCoreError, ClientError) as error:
        raise sqs.queue_error(error, settings) from error
    detail = f"{settings.sqs_queue_url} answers"
    if redriven:
        return Finding("event queue", True, f"{detail}; what cannot be read goes to its dead-letter queue")
    return Finding("event queue", False, f"{detail}, without a redrive policy: {sqs.NO_REDRIVE}", sqs.GIVE_REDRIVE)


def _webhook(settings: Settings) -> Finding:
    (process,) = (process for process in services(settings) if process.name == "webhook")
    answer = httpx.head(
        f"{process.url}/events", headers={"authorization": f"Bearer {settings.event_secret}"}, timeout=10
    )
    if answer.status_code == 401:
        return Finding("webhook", False, f"{process.url} wants another secret", "'tidemill down', then 'tidemill up'")
    return Finding("webhook", answer.raise_for_status().is_success, f"{process.url}/events takes events")


def _work(context: Context) -> list[Finding]:
    """Drops and versions that ended badly: not this machine's fault, but what an operator looks for here."""
    bad = [state for state in context.ledger.drops.states() if state.state in ("refused", "poison")]
    findings = [
        Finding(f"drop {state.drop_id}", False, f"{state.state}: {state.message}", "correct the data and drop it again")
        for state in bad[-5:]
    ]
    failed = [version for version in context.ledger.versions.all() if version.state == "failed"]
    findings += [
        Finding(f"{version.model} {version.version}", False, f"failed: {version.message}", "'tidemill retrain'")
        for version in failed[-5:]
    ]
    return findings or [Finding("drops and versions", True, "none failed")]


def _nearest_folder(settings: Settings) -> str:
    """`home`, or the nearest folder above it that exists."""
    return str(next(folder for folder in (settings.home, *settings.home.parents) if folder.exists()))
