"""The data gate: does a prepared drop meet the recipe's expectations? Great Expectations judges metrics, never text."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
import pyarrow as pa

from checks.data_docs import data_docs_site, offline_pages
from checks.expectations import recipe_expectations
from lake.bucket import Bucket, BucketAddress
from lake.errors import StorageError
from lake.recipe import Recipe
from lake.records import SPLITS, CheckReport, Dataset

METRICS = ["id", "reason", "n_characters", "n_words", "lang", "letters_share", "repetition", "pii_leaks"]
DUPLICATES = ("exact_duplicate", "near_duplicate")
# Judged on kept documents only: a rejected one may be of any length.
_NUMBERS = ["n_characters", "n_words", "letters_share", "repetition", "leaks"]


def check(dataset: Dataset, recipe: Recipe, address: BucketAddress, check_id: str, prefix: str) -> CheckReport:
    """Validate a dataset's metrics and leave Data Docs below `prefix`. A failure is reported, not raised.

    Raises StorageError when the dataset's metrics cannot be read.
    """
    bucket = Bucket(address)
    frame = metrics_frame(read_metrics(bucket, dataset), dataset)
    with tempfile.TemporaryDirectory(prefix="tidemill-check-") as folder:
        outcome, n_expectations = _validate(frame, recipe, dataset.n_kept, Path(folder))
        failures = tuple(_in_words(result) for result in outcome.results if not result.success)
        title = f"{dataset.model}, dataset {dataset.dataset_id}"
        for name, page in offline_pages(Path(folder), title, n_expectations, failures).items():
            bucket.put(f"{prefix}{name}", page.encode(), "text/html; charset=utf-8")
    return CheckReport(
        check_id=check_id,
        dataset_id=dataset.dataset_id,
        passed=bool(outcome.success),
        n_expectations=n_expectations,
        failures=failures,
        data_docs_key=f"{prefix}validation.html",
    )


def read_metrics(bucket: Bucket, dataset: Dataset) -> pd.DataFrame:
    """One row for each document that was read, columns `METRICS`; `reason` is null for a kept one. Raises StorageError."""
    prefix = f"{dataset.prefix}metrics/"
    keys = [ref.key for ref in bucket.list(prefix) if ref.key.endswith(".parquet")]
    parts: list[pa.Table] = []
    for key in keys:
        try:
            parts.append(bucket.get_table(key, METRICS))
        except (pa.ArrowException, KeyError) as error:
            raise StorageError(
                f"s3://{bucket.name}/{key}",
                expected=f"Parquet with the columns {', '.join(METRICS)}",
                got=str(error).splitlines()[0],
                remedy="delete the dataset's manifest and run the drop again",
            ) from error
    if not parts:
        return pd.DataFrame(columns=METRICS)
    # `permissive`: a part without rejects types its `reason` as null.
    frame: pd.DataFrame = pa.concat_tables(parts, promote_options="permissive").to_pandas()
    return frame


def metrics_frame(metrics: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """What the suite looks at: a row for each document, the drop's own counts and rates repeated on all of them.

    Values of rejected documents are blanked. A drop without any document gets one blank row, so that its counts are
    judged all the same.
    """
    frame = metrics.copy() if len(metrics) else pd.DataFrame([{**dict.fromkeys(METRICS), "reason": "nothing_read"}])
    kept = frame["reason"].isna()
    frame["kept"] = kept.astype(int)
    frame["leaks"] = (pd.to_numeric(frame["pii_leaks"]) > 0).astype(float)
    for column in _NUMBERS:
        frame[column] = pd.to_numeric(frame[column]).astype(float).where(kept)
    for column in ("id", "lang"):
        frame[column] = frame[column].where(kept)
    n_read = max(dataset.n_read, 1)
    duplicates = sum(dataset.rejected.get(reason, 0) for reason in DUPLICATES)
    frame["n_kept"] = dataset.n_kept
    frame["duplicate_rate"] = duplicates / n_read
    frame["reject_rate"] = (sum(dataset.rejected.values()) - duplicates) / n_read
    for split in SPLITS:
        frame[f"n_{split}"] = dataset.n_documents.get(split, 0)
    return frame


def _validate(frame: pd.DataFrame, recipe: Recipe, n_kept: int, folder: Path) -> tuple[Any, int]:
    """Run the suite in a throw-away context that writes Data Docs below `folder`; the result and its size."""
    context = gx.get_context(mode="ephemeral", project_config=data_docs_site(folder))
    asset = context.data_sources.add_pandas("dataset").add_dataframe_asset("documents")
    suite = context.suites.add(gx.ExpectationSuite(name="documents", expectations=recipe_expectations(recipe, n_kept)))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name="documents", data=asset.add_batch_definition_whole_dataframe("all"), suite=suite)
    )
    checkpoint = context.checkpoints.add(gx.Checkpoint(name="documents", validation_definitions=[definition]))
    outcome = checkpoint.run(batch_parameters={"dataframe": frame})
    context.build_data_docs()
    return next(iter(outcome.run_results.values())), len(suite.expectations)


def _in_words(result: Any) -> str:
    """`expectation: expected …, got …`"""
    config, observed = result.expectation_config, result.result
    if result.exception_info and result.exception_info.get("raised_exception"):
        got = f"an error: {result.exception_info.get('exception_message')}"
    elif "observed_value" in observed:
        got = _number(observed["observed_value"])
    else:
        examples = ", ".join(repr(value) for value in observed.get("partial_unexpected_list", [])[:3])
        judged = observed["element_count"] - observed["missing_count"]
        got = f"{observed['unexpected_count']} of {judged} others, such as {examples}"
    return f"{config.description}, got {got}"


def _number(value: Any) -> str:
    if value is None or value != value:  # NaN: the quantile or mean of nothing
        return "none, as no document was kept"
    return f"{float(value):g}"
