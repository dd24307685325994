"""The preparation of a drop as a Prefect task: what is committed is looked up, the rest is the job's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE  # stages know by their manifests what is done

from beam_jobs.parameters import CODE, prepare_parameters, rejected_share
from flows.base_scorer import with_base_model
from flows.context import Context
from flows.datasets import committed_datasets, history_of
from flows.history import indexes_of, pasts_of, reserves_of
from flows.reports import shown
from lake.errors import TidemillError
from lake.layout import dataset_prefix
from lake.records import Dataset, Drop
from lake.stage import code_version, run_stage, stage_id
from lake.tombstones import Tombstones, digest


@task(task_run_name="prepare {drop_id}", cache_policy=NO_CACHE)
def prepare(context: Context, drop_id: str) -> Dataset:
    """Beam: extract, clean, redact, deduplicate against the drop and all history, select, split.

    By id: Prefect would look through each of a drop's 100,000 objects for something to wait for.
    """
    drop = context.ledger.drops.get(drop_id)
    if drop is None:
        raise TidemillError(
            f"drop {drop_id}", expected="a drop in the ledger", got="none", remedy="'tidemill runs' lists the drops"
        )
    recipe = context.recipe(drop.model)
    parameters = prepare_parameters(recipe)
    tombstones = context.ledger.erasures.tombstones(drop.model)
    committed = _committed_before(context, drop, parameters, tombstones)
    if committed is not None:
        return committed
    earlier = history_of(context, drop.model)
    history, reserves = indexes_of(context, drop.model, earlier), reserves_of(context, drop.model, earlier)

    def build(identity: str, prefix: str) -> Dataset:
        from beam_jobs.prepare import prepare as run_job
        from beam_jobs.runners import runner_options

        return run_job(
            drop,
            with_base_model(recipe, context.model_cache),
            context.address,
            identity,
            history,
            runner_options(recipe.runner, context.address),
            prefix=prefix,
            reserves=reserves,
            corpus=pasts_of(context, earlier),
            rejected_share=rejected_share(earlier),
            tombstones=tombstones,
        )

    dataset = run_stage(
        context.ledger,
        context.bucket,
        stage="prepare",
        model=drop.model,
        inputs=_prepare_inputs(drop, [each.identity for each in (*history, *reserves)], tombstones),
        parameters=parameters,
        package=CODE,
        folder_of=lambda identity: dataset_prefix(drop.model, identity),
        record_type=Dataset,
        build=build,
        # The history is among the inputs: an attempt against another one would be another stage.
        subject=f"drop {drop.drop_id}",
    )
    outcome = {"kept": dataset.n_kept, **dataset.rejected}
    shown(
        create_table_artifact,
        [{"outcome": reason, "documents": count} for reason, count in outcome.items()],
        key="prepare",
        description=f"{dataset.n_read} documents read from {dataset.n_objects} objects of drop {drop.drop_id}",
    )
    return dataset


def _committed_before(
    context: Context, drop: Drop, parameters: dict[str, Any], tombstones: Tombstones
) -> Dataset | None:
    """The drop's dataset, of an earlier attempt that ended after its preparation.

    Other drops may have been prepared since, and with them in the history it would become a second dataset.
    """
    for dataset in committed_datasets(context, drop.model):
        if dataset.drop_id == drop.drop_id:
            inputs = _prepare_inputs(drop, [*dataset.history_ids, *dataset.reused_ids], tombstones)
            if dataset.dataset_id == stage_id("prepare", inputs, parameters, code_version(CODE)):
                return dataset
    return None


def _prepare_inputs(drop: Drop, history_ids: Sequence[str], tombstones: Tombstones) -> list[str]:
    erased = [digest([*tombstones.documents, *map(str, tombstones.texts)])] if tombstones else []
    return [drop.drop_id, *history_ids, *erased]
