"""One Prefect task a stage: look up what is committed, call the layer below, leave something to look at in the UI.

The stages' own packages are imported inside the tasks: a process pays only for what it runs.
"""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE  # stages know by their manifests what is done

from flows.context import Context
from flows.datasets import (
    checkpoint_of,
    datasets_by_id,
    history_of,
    seen_by,
    with_split,
)
from flows.reports import data_check_artifact, loss_curve_artifact, shown, training_progress
from lake.errors import CheckFailed, GateRejected, TidemillError
from lake.layout import report_prefix, version_prefix
from lake.ledger.versions import Version
from lake.records import (
    Bento,
    Checkpoint,
    CheckReport,
    Dataset,
    EvalReport,
    ExportedModel,
)
from lake.stage import run_stage


@task(task_run_name="check {dataset.dataset_id}", cache_policy=NO_CACHE)
def check(context: Context, dataset: Dataset) -> CheckReport:
    """Great Expectations. Raises CheckFailed, so that the drop stops here and the champion stays."""
    recipe = context.recipe(dataset.model)
    history = [past for past in history_of(context, dataset.model) if past.dataset_id != dataset.dataset_id]

    def build(identity: str, prefix: str) -> CheckReport:
        from checks.data import check as run_suite

        return run_suite(dataset, recipe, context.address, identity, prefix, history)

    report = run_stage(
        context.ledger,
        context.bucket,
        stage="check",
        model=dataset.model,
        inputs=[dataset.dataset_id],
        parameters=recipe.model_dump(mode="json", include={"task", "check", "prepare"}),
        package="checks",
        folder_of=lambda identity: report_prefix(dataset.model, "check", identity),
        record_type=CheckReport,
        build=build,
    )
    shown(data_check_artifact, context.bucket, report)
    if not report.passed:
        raise CheckFailed(
            f"dataset {dataset.dataset_id} of {dataset.model}",
            expected=f"{report.n_expectations} expectations met",
            got="; ".join(report.failures),
            remedy="correct the data (or the recipe's check section) and drop it again; the champion keeps serving",
        )
    return report


@task(task_run_name="train {version.model} {version.version}", cache_policy=NO_CACHE)
def train(context: Context, version: Version) -> Checkpoint:
    """LoRA on torch, from the champion's adapter or the base. A killed run resumes from its last checkpoint.

    Raises TidemillError when documents that the version was to see are erased.
    """
    recipe = context.recipe(version.model)
    require_clean(context, version)
    datasets = datasets_by_id(context, version.model, version.dataset_ids)
    start = _start_of(context, version)
    replay = [dataset for dataset in seen_by(context, version.model, version.parent) if dataset not in datasets]

    def build(identity: str, prefix: str) -> Checkpoint:
        from training.finetune import finetune

        with training_progress(context.progress_file(version.model, version.version)) as progress:
            checkpoint, _ = finetune(
                model=version.model,
                version=version.version,
                datasets=datasets,
                replay=with_split(replay, "train"),
                parent=start,
                recipe=recipe,
                address=context.address,
                cache=context.model_cache,
                workdir=context.workdir(identity),
                checkpoint_id=identity,
                prefix=prefix,
                progress=progress,
            )
        return checkpoint

    checkpoint = run_stage(
        context.ledger,
        context.bucket,
        stage="train",
        model=version.model,
        inputs=[*version.dataset_ids, version.version, start.checkpoint_id if start else "", recipe.base_model],
        parameters=recipe.training.model_dump(mode="json"),
        package="training",
        folder_of=lambda _: version_prefix(version.model, version.version, "adapter"),
        record_type=Checkpoint,
        build=build,
    )
    context.clear_workdir(checkpoint.checkpoint_id)
    shown(loss_curve_artifact, context.bucket, checkpoint)
    return checkpoint


@task(task_run_name="evaluate {checkpoint.model} {checkpoint.version}", cache_policy=NO_CACHE)
def evaluate(context: Context, checkpoint: Checkpoint, version: Version) -> EvalReport:
    """Challenger against champion on held-out data. Raises GateRejected when the challenger does not win."""
    from checks.gate import judge, render_report
    from training.evaluate import evaluate as measure

    recipe = context.recipe(version.model)
    champion = checkpoint_of(context, version.model, version.parent)
    champion_datasets = with_split(seen_by(context, version.model, version.parent), "test")

    def build(identity: str, prefix: str) -> EvalReport:
        scores = measure(
            checkpoint=checkpoint,
            champion=champion,
            datasets=datasets_by_id(context, version.model, version.dataset_ids),
            champion_datasets=champion_datasets,
            recipe=recipe,
            address=context.address,
            cache=context.model_cache,
        )
        passed, reasons = judge(
            scores.perplexity, scores.task, recipe.gate, version.parent, all_erased=not champion_datasets
        )
        report = EvalReport(
            eval_id=identity,
            model=version.model,
            version=version.version,
            champion_version=version.parent,
            passed=passed,
            reasons=reasons,
            perplexity=scores.perplexity,
            task=scores.task,
            report_key=f"{prefix}report.html",
        )
        page, chart = render_report(report)
        context.bucket.put(report.report_key, page.encode(), "text/html")
        context.bucket.put(f"{prefix}perplexity.png", chart, "image/png")
        return report

    report = run_stage(
        context.ledger,
        context.bucket,
        stage="evaluate",
        model=version.model,
        inputs=[checkpoint.checkpoint_id, champion.checkpoint_id if champion else ""],
        parameters=recipe.gate.model_dump(mode="json"),
        package="training",
        folder_of=lambda identity: report_prefix(version.model, "evaluation", identity),
        record_type=EvalReport,
        build=build,
    )
    shown(
        create_markdown_artifact,
        "\n".join(f"- {reason}" for reason in report.reasons)
        + f"\n\n[Evaluation report]({context.bucket.url(report.report_key)})",
        key="evaluation",
        description=f"{version.model} {version.version}: {'passed' if report.passed else 'rejected by'} the gate",
    )
    if not report.passed:
        context.ledger.versions.move(
            version.model, version.version, "rejected", "; ".join(report.reasons), expected=("candidate", "failed")
        )
        raise GateRejected(
            f"{version.model} {version.version}",
            expected="a challenger that passes the recipe's gate",
            got="; ".join(report.reasons),
            remedy="the champion keeps serving; drop more or better data, or change the recipe's gate or training",
        )
    return report


@task(task_run_name="export {checkpoint.model} {checkpoint.version}", cache_policy=NO_CACHE)
def export(context: Context, checkpoint: Checkpoint) -> ExportedModel:
    """ONNX with KV cache, parity with torch, 8-bit weights with a perplexity check of their own."""
    recipe = context.recipe(checkpoint.model)

    def build(identity: str, prefix: str) -> ExportedModel:
        from training.export import export as run_export

        return run_export(
            checkpoint=checkpoint,
            datasets=datasets_by_id(context, checkpoint.model, checkpoint.dataset_ids),
            recipe=recipe,
            address=context.address,
            cache=context.model_cache,
            workdir=context.workdir(identity),
            export_id=identity,
            prefix=prefix,
        )

    exported = run_stage(
        context.ledger,
        context.bucket,
        stage="export",
        model=checkpoint.model,
        inputs=[checkpoint.checkpoint_id],
        parameters=recipe.export.model_dump(mode="json"),
        package="training",
        folder_of=lambda _: version_prefix(checkpoint.model, checkpoint.version, "onnx"),
        record_type=ExportedModel,
        build=build,
    )
    context.clear_workdir(exported.export_id)
    return exported


@task(task_run_name="package {exported.model} {exported.version}", cache_policy=NO_CACHE)
def package(context: Context, exported: ExportedModel, version: Version) -> Bento:
    """A bento whose labels carry the lineage."""
    recipe = context.recipe(exported.model)

    def build(identity: str, prefix: str) -> Bento:
        from bentos.package import package as build_bento

        labels = {
            "version": version.version,
            "export_id": exported.export_id,
            "datasets": ".".join(version.dataset_ids),
            "parent": version.parent or "none",
        }
        return build_bento(
            exported,
            recipe,
            labels,
            context.address,
            context.bentoml_home,
            context.workdir(identity),
            identity,
            prefix,
        )

    bento = run_stage(
        context.ledger,
        context.bucket,
        stage="package",
        model=exported.model,
        inputs=[exported.export_id],
        parameters={"log_share": recipe.monitoring.log_share},
        package="bentos",
        folder_of=lambda _: version_prefix(exported.model, exported.version, "bento"),
        record_type=Bento,
        build=build,
    )
    context.clear_workdir(bento.bento_id)
    context.ledger.versions.move(exported.model, exported.version, "ready", expected=("candidate", "failed"))
    return bento


@task(task_run_name="roll out {bento.tag}", cache_policy=NO_CACHE)
def roll_out(context: Context, bento: Bento, inject_error_rate: float = 0.0) -> str:
    """Hand the bento to the rollout controller. Returns the rollout's id."""
    from bentos.orders import begin_rollout
    from flows.rollout_scorers import tellable

    recipe = context.recipe(bento.model)
    _require_signature(context, bento)
    started = begin_rollout(
        context.settings,
        context.ledger,
        model=bento.model,
        version=bento.version,
        tag=bento.tag,
        plan=tellable(recipe.rollout, recipe),
        inject_error_rate=inject_error_rate,
    )
    get_run_logger().info("rollout %s started at %s", started.rollout_id, datetime.now(UTC).isoformat())
    return started.rollout_id


def bento_of(context: Context, model: str, version: str) -> Bento | None:
    """The newest bento of a version; None when it was never packaged."""
    records = [Bento.model_validate(each) for each in context.ledger.stages.records("package", model)]
    return next((each for each in reversed(records) if each.version == version), None)


def _require_signature(context: Context, bento: Bento) -> None:
    """Raise TidemillError when the bento would refuse what the champion's clients ask."""
    from bentos.signature import mismatch

    champion = context.ledger.versions.champion(bento.model)
    served = bento_of(context, bento.model, champion.version) if champion else None
    if served is not None and (other := mismatch(served.labels, bento.labels)):
        raise TidemillError(
            f"rollout of {bento.model} {bento.version}",
            expected=f"the signature of the champion, {served.version}",
            got=other,
            remedy="the champion keeps serving; give what is asked in another way a name of its own: a recipe",
        )


def require_clean(context: Context, version: Version) -> None:
    """Raise TidemillError when documents that a version has seen, or was to see, were erased since it was begun."""
    if erasures := context.ledger.taints.blocking(version.model, version.version):
        raise TidemillError(
            f"{version.model} {version.version}",
            expected="a version that has seen nothing of what is erased",
            got=f"one that began before erasure {', '.join(erasures)}",
            remedy="nothing to do: what is left of its data waits, and is trained on without what was erased",
        )


def _start_of(context: Context, version: Version) -> Checkpoint | None:
    """What a version starts from: its parent, unless that has seen what was erased. None is the base model."""
    if version.parent is None or context.ledger.taints.blocking(version.model, version.parent):
        return None
    context.ledger.taints.inherit(version.model, version.version, version.parent)
    return checkpoint_of(context, version.model, version.parent)
