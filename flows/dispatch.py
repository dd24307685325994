"""Work that other processes do: hand it over once, follow it, survive the death of either side."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from flows.context import Context
from flows.reaper import Reaper, crash
from flows.rollout_report import keep_rollout_report
from lake.errors import GateRejected, TidemillError
from lake.ledger.drops import backoff
from lake.ledger.versions import Version
from lake.records import ExportedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
MAX_FRESH_RUNS = 3
POLL_S = 1.0
SERVER_AWAY_S = 300.0


def run_training(context: Context, version: Version) -> ExportedModel:
    """Run the `train` flow in the training pool and wait for it. A crashed run is resumed, three times at most.

    Raises GateRejected when the challenger lost, TidemillError when training failed.
    """
    for run in _training_runs(version):
        final = _followed(context, run.id, version)
        if final.state is not None and final.state.is_completed():
            records = (ExportedModel.model_validate(r) for r in context.ledger.stages.records("export", version.model))
            return next(record for record in records if record.version == version.version)
        now = context.ledger.versions.get(version.model, version.version)
        if now is not None and now.state == "rejected":
            raise GateRejected(
                f"{version.model} {version.version}",
                expected="a challenger that passes the recipe's gate",
                got=now.message or "no reason given",
                remedy="the champion keeps serving; 'tidemill models' shows the figures",
            )
        if final.state is not None and (final.state.is_failed() or final.state.is_cancelled()):
            raise TidemillError(
                f"training of {version.model} {version.version}",
                expected="a completed flow run",
                got=final.state.message or str(final.state.name),
                remedy=f"open flow run {final.name} in the Prefect UI, then 'tidemill retrain {version.model}'",
            )
        get_run_logger().warning("training run %s ended as %s; trying again", final.name, final.state)
    raise TidemillError(
        f"training of {version.model} {version.version}",
        expected=f"a run that survives, of {MAX_FRESH_RUNS}",
        got="as many crashes",
        remedy="look for out-of-memory kills in the logs, then 'tidemill retrain'",
    )


def wait_for_rollout(context: Context, rollout_id: str) -> str:
    """Follow a rollout to its end, logging every decision and keeping its report. Returns the outcome in words."""
    told = 0
    while True:
        # The state first: the decision that has ended it is then among those that are read after it.
        state = context.ledger.rollouts.get(rollout_id)
        decisions = context.ledger.rollouts.decisions(rollout_id)
        for decision in decisions[told:]:
            get_run_logger().info(
                "%s: %s → %s: %s", decision.action, decision.from_stage, decision.to_stage, decision.reason
            )
        if state is not None and len(decisions) > told:
            _keep_report(context, rollout_id)
        told = len(decisions)
        if state is None or state.state != "running":
            return f"rollout {rollout_id}: {state.state if state else 'unknown'}"
        time.sleep(POLL_S)


def _keep_report(context: Context, rollout_id: str) -> None:
    """A picture that cannot be drawn or stored is no reason to follow the rollout no longer."""
    try:
        prefix = keep_rollout_report(context, rollout_id)
    except Exception as error:
        get_run_logger().warning(
            "no report of %s now: %s; 'tidemill rollout report %s' writes it again", rollout_id, error, rollout_id
        )
    else:
        get_run_logger().info("report: s3://%s/%sreport.md", context.bucket.name, prefix)


def read_progress(context: Context, model: str, version: str) -> dict[str, float] | None:
    """What the training process last told: step, n_steps, loss, tokens_per_s, eta_s. None before it starts."""
    try:
        told: dict[str, float] = json.loads(context.progress_file(model, version).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return told


def _training_runs(version: Version) -> Iterator[FlowRun]:
    """The run under way, if an earlier caller died while it waited; then fresh ones, never two for one key."""
    n_fresh, attempt = 0, 0
    while n_fresh < MAX_FRESH_RUNS:
        attempt += 1
        run = _patiently(partial(_started, version, f"{version.training_key}-{attempt}"))
        if run.state is not None and run.state.is_final() and not run.state.is_completed():
            continue  # an earlier attempt
        if n_fresh:
            time.sleep(backoff(n_fresh).total_seconds())
        n_fresh += 1
        yield run


def _started(version: Version, key: str) -> FlowRun:
    """The training run by this key, made if there is none."""
    run = run_deployment(
        "train/train",
        parameters={"model": version.model, "version": version.version},
        idempotency_key=key,
        timeout=0,
    )
    return cast(FlowRun, run)  # a coroutine for asynchronous callers alone


def _followed(context: Context, run_id: UUID, version: Version) -> FlowRun:
    """Poll a flow run until it is final. A run whose process is gone is declared crashed."""
    last_told = 0.0
    reaper = Reaper(context)
    with get_client(sync_client=True) as client:
        while True:
            run = _patiently(partial(client.read_flow_run, run_id))
            if run.state is not None and run.state.is_final():
                return run
            if reaper.is_orphaned(run):
                _patiently(partial(crash, client, run))
                continue
            progress = read_progress(context, version.model, version.version)
            if progress and time.monotonic() - last_told > 30:
                get_run_logger().info("training: %s", progress)
                last_told = time.monotonic()
            time.sleep(POLL_S)


def _patiently(ask: Callable[[], T]) -> T:
    """The Prefect server's answer. While it is away, as when it is being started again, ask again for SERVER_AWAY_S."""
    deadline = time.monotonic() + SERVER_AWAY_S
    while True:
        try:
            return ask()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            refused = isinstance(error, httpx.HTTPStatusError) and not error.response.is_server_error
            if refused or time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
