"""Watch what live models are asked: one drift verdict per complete window of logged requests."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from flows.context import Context
from flows.reports import shown
from lake.ledger.versions import Version
from lake.records import DriftVerdict, PredictionLog


def check_drift(context: Context, model: str) -> list[DriftVerdict]:
    """Judge the windows that are due. Returns the new verdicts, oldest first."""
    champion = context.ledger.versions.champion(model)
    if champion is None:
        return []
    reference, due = windows_due(context, champion)
    return [_judge(context, champion, reference, window, number) for number, window in due]


def new_window(context: Context, model: str) -> bool:
    """Whether `check_drift` has something to judge. Cheap enough to ask often."""
    champion = context.ledger.versions.champion(model)
    return champion is not None and bool(windows_due(context, champion)[1])


def windows_due(
    context: Context, champion: Version
) -> tuple[list[PredictionLog], list[tuple[int, list[PredictionLog]]]]:
    """The reference, and the newest complete windows that have not been judged, each with its number.

    As many as it takes to confirm drift, no more: where traffic fills windows faster than they can be judged, going
    through all of them would tell ever later what clients ask now.
    """
    from checks.window import read_log, split_windows

    rules = context.recipe(champion.model).monitoring
    # The reference begins with the version's first live answers, those of its own rollout among them.
    rows = read_log(context.address, champion.model, champion.created_at)
    answered = [row for row in rows if row.version == champion.version]
    reference, windows = split_windows(answered, rules.reference_requests, rules.window_requests)
    unjudged = context.ledger.drift_windows.next_number(champion.model, champion.version)
    first = max(unjudged, len(windows) - rules.confirm_windows)
    return reference, list(enumerate(windows[first:], start=first))


def confirmed_drift(context: Context, model: str) -> DriftVerdict | None:
    """The champion's newest verdict, if it confirms drift."""
    champion = context.ledger.versions.champion(model)
    verdicts = context.ledger.drift_windows.verdicts(model, champion.version) if champion else []
    return verdicts[-1] if verdicts and verdicts[-1].confirmed else None


@task(task_run_name="drift window {number} of {champion.model} {champion.version}", cache_policy=NO_CACHE)
def _judge(
    context: Context,
    champion: Version,
    reference: list[PredictionLog],
    window: list[PredictionLog],
    number: int,
) -> DriftVerdict:
    verdict = judge(context, champion, reference, window, number)
    shown(
        create_link_artifact,
        context.bucket.url(verdict.report_key),
        key="drift-report",
        link_text=f"Evidently report {verdict.drift_id}",
    )
    get_run_logger().info(
        "%s: %s (p=%.4f, %s=%.4f, %d against %d requests); report %s",
        verdict.drift_id,
        "drift, confirmed" if verdict.confirmed else "drift, once" if verdict.drifted else "no drift",
        verdict.p_value,
        verdict.method,
        verdict.statistic,
        verdict.n_current,
        verdict.n_reference,
        verdict.report_key,
    )
    return verdict


def judge(
    context: Context,
    champion: Version,
    reference: list[PredictionLog],
    window: list[PredictionLog],
    number: int,
) -> DriftVerdict:
    """The verdict on window `number`, entered in the ledger, its report in the bucket."""
    from checks.drift import detect

    verdict = detect(
        champion.model,
        champion.version,
        reference,
        window,
        context.recipe(champion.model).monitoring,
        context.ledger.drift_windows.verdicts(champion.model, champion.version),
        context.address,
        f"{champion.model}-{champion.version}-{number:04d}",
    )
    context.ledger.drift_windows.record(number, verdict)
    return verdict
