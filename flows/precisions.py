"""A second bento of a version, in another precision: exported and packaged as stages of their own, once each."""

from __future__ import annotations

from flows.context import Context
from flows.datasets import checkpoint_of, datasets_by_id
from lake.errors import TidemillError
from lake.layout import version_prefix
from lake.ledger.versions import Version
from lake.recipe import Recipe
from lake.recipe.experiment import Precision
from lake.records import Bento, ExportedModel
from lake.stage import run_stage

EXPORT_STAGE, PACKAGE_STAGE = "export_precision", "package_precision"
# Whoever asks for 8-bit weights by name wants to see what they cost.
ANY_LOSS = 1e9


def packaged_as(context: Context, version: Version, precision: Precision) -> Bento:
    """The bento `<model>:<version>-<precision>`, made if need be: a minute or two for a small model.

    An export of the version in that precision is used where there is one. Raises TidemillError when the version was
    never trained here, or when its weights do not bear the precision at all.
    """
    recipe = context.recipe(version.model)
    exported = _exported(context, version, precision, recipe)

    def build(identity: str, prefix: str) -> Bento:
        from bentos.package import package

        labels = {"version": version.version, "export_id": exported.export_id, "parent": version.parent or "none"}
        workdir = context.workdir(identity)
        name = f"{version.version}-{precision}"
        return package(exported, recipe, labels, context.address, context.bentoml_home, workdir, identity, prefix, name)

    bento = run_stage(
        context.ledger,
        context.bucket,
        stage=PACKAGE_STAGE,
        model=version.model,
        inputs=[exported.export_id, precision],
        parameters={"log_share": recipe.monitoring.log_share},
        package="bentos",
        folder_of=lambda _: version_prefix(version.model, version.version, f"bento-{precision}"),
        record_type=Bento,
        build=build,
    )
    from bentos.package import restore

    # Committed earlier, on another machine perhaps.
    restore(bento, exported.onnx_prefix, context.address, context.bentoml_home, context.workdir(bento.bento_id))
    context.clear_workdir(bento.bento_id)
    return bento


def _exported(context: Context, version: Version, precision: Precision, recipe: Recipe) -> ExportedModel:
    records = [ExportedModel.model_validate(each) for each in context.ledger.stages.records("export", version.model)]
    for exported in reversed(records):
        if (exported.version, exported.variant) == (version.version, precision):
            return exported
    checkpoint = checkpoint_of(context, version.model, version.version)
    if checkpoint is None:
        raise TidemillError(
            f"{precision} of {version.model} {version.version}",
            expected="a version that was trained",
            got="no checkpoint of it",
            remedy="'tidemill models' lists the versions",
        )
    rules = recipe.export.model_copy(
        update={"quantization": "none" if precision == "fp32" else "int8", "max_quantization_loss": ANY_LOSS}
    )

    def build(identity: str, prefix: str) -> ExportedModel:
        from training.export import export

        made = export(
            checkpoint=checkpoint,
            datasets=datasets_by_id(context, version.model, checkpoint.dataset_ids),
            recipe=recipe.model_copy(update={"export": rules}),
            address=context.address,
            cache=context.model_cache,
            workdir=context.workdir(identity),
            export_id=identity,
            prefix=prefix,
        )
        if made.variant != precision:
            raise TidemillError(
                f"{precision} of {version.model} {version.version}",
                expected="weights that answer in that precision",
                got="a perplexity that is no number",
                remedy="compare another precision",
            )
        return made

    exported = run_stage(
        context.ledger,
        context.bucket,
        stage=EXPORT_STAGE,
        model=version.model,
        inputs=[checkpoint.checkpoint_id, precision],
        parameters=rules.model_dump(mode="json"),
        package="training",
        folder_of=lambda _: version_prefix(version.model, version.version, f"onnx-{precision}"),
        record_type=ExportedModel,
        build=build,
    )
    context.clear_workdir(exported.export_id)
    return exported
