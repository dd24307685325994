"""Watch what live models are asked: one drift verdict per complete window of logged requests."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from flows.context import Context
from lake.layout import report_prefix
from lake.ledger.versions import Version
from lake.records import DriftVerdict, PredictionLog


def check_drift(context: Context, model: str) -> list[DriftVerdict]:
    """Judge the newest complete windows that have not been judged; returns the new verdicts, oldest first.

    As many as it takes to confirm drift, no more: where traffic fills windows faster than they can be judged, going
    through all of them would tell ever later what clients ask now.
    """
    champion = context.ledger.versions.champion(model)
    if champion is None:
        return []
    reference, windows = _windows(context, champion)
    newest = len(windows) - context.recipe(model).monitoring.confirm_windows
    first = max(context.ledger.drift_windows.next_number(model, champion.version), newest)
    return [
        _judge(context, champion, reference, window, number)
        for number, window in enumerate(windows[first:], start=first)
    ]


def new_window(context: Context, model: str) -> bool:
    """Whether `check_drift` has something to judge. Cheap enough to ask often."""
    champion = context.ledger.versions.champion(model)
    if champion is None:
        return False
    _, windows = _windows(context, champion)
    return len(windows) > context.ledger.drift_windows.next_number(model, champion.version)


def confirmed_drift(context: Context, model: str) -> DriftVerdict | None:
    """The champion's newest verdict, if it confirms drift."""
    champion = context.ledger.versions.champion(model)
    verdicts = context.ledger.drift_windows.verdicts(model, champion.version) if champion else []
    return verdicts[-1] if verdicts and verdicts[-1].confirmed else None


def _windows(context: Context, champion: Version) -> tuple[list[PredictionLog], list[list[PredictionLog]]]:
    from checks.window import read_log, split_windows

    rules = context.recipe(champion.model).monitoring
    # The reference begins with the version's first live answers, those of its own rollout among them.
    rows = read_log(context.address, champion.model, champion.created_at)
    answered = [row for row in rows if row.version == champion.version]
    return split_windows(answered, rules.reference_requests, rules.window_requests)


@task(task_run_name="drift window {number} of {champion.model} {champion.version}", cache_policy=NO_CACHE)
def _judge(
    context: Context,
    champion: Version,
    reference: list[PredictionLog],
    window: list[PredictionLog],
    number: int,
) -> DriftVerdict:
    from checks.drift import detect

    drift_id = f"{champion.model}-{champion.version}-{number:04d}"
    previous = context.ledger.drift_windows.verdicts(champion.model, champion.version)
    verdict = detect(
        champion.model,
        champion.version,
        reference,
        window,
        context.recipe(champion.model).monitoring,
        previous,
        context.address,
        drift_id,
    )
    context.ledger.drift_windows.record(number, verdict)
    create_link_artifact(
        context.bucket.url(verdict.report_key), key="drift-report", link_text=f"Evidently report {drift_id}"
    )
    words = "drift, confirmed" if verdict.confirmed else "drift, once" if verdict.drifted else "no drift"
    get_run_logger().info(
        "%s: %s (p=%.4f, %s=%.4f, %d against %d requests) at %s; report below %s",
        drift_id,
        words,
        verdict.p_value,
        verdict.method,
        verdict.statistic,
        verdict.n_current,
        verdict.n_reference,
        datetime.now(UTC).isoformat(timespec="seconds"),
        report_prefix(champion.model, "drift", drift_id),
    )
    return verdict
