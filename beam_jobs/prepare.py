"""Preparation, the job: read, clean, deduplicate against the drop and all history, select, split, write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.learn import learn_domains, learn_perplexity, sum_frequencies
from beam_jobs.mixing import REPORT
from beam_jobs.part import Reserve, parts_of, total
from beam_jobs.past import Past, index_files
from beam_jobs.pipeline import build
from beam_jobs.runners import LOCAL
from beam_jobs.steps import Job
from beam_jobs.worker_errors import worker_error
from beam_jobs.write import FOLDERS
from lake.errors import StorageError
from lake.layout import dataset_prefix
from lake.recipe import Recipe
from lake.records import SPLITS, Dataset, Drop
from lake.store import Address, Store
from lake.tombstones import NOTHING_ERASED, Tombstones

COUNTED = ("documents", "characters", "tokens", "rejected", "redacted", "domains", "languages", "reserved")


def prepare(
    drop: Drop,
    recipe: Recipe,
    address: Address,
    dataset_id: str,
    history: Sequence[Past],
    runner_options: Sequence[str] = LOCAL,
    *,
    prefix: str | None = None,
    sources: Mapping[str, Address] | None = None,
    reserves: Sequence[Past] = (),
    corpus: Sequence[Past] = (),
    rejected_share: float = 0.0,
    tombstones: Tombstones = NOTHING_ERASED,
) -> Dataset:
    """Run the job; everything is below `prefix` (`datasets/<model>/<dataset_id>/`) when it returns.

    The manifest is the caller's. `sources` are the stores of the drop's objects by the name in their refs, by default
    the one that is written to. `history` are the indexes that documents are compared with, `corpus` the datasets
    behind them, oldest first, of whose text perplexity is learned; `rejected_share` of their documents was rejected for
    it. `reserves` are datasets whose left-out documents take part again. What `tombstones` name becomes a reject
    without text.

    Leaves `shards/<split>-*.parquet`, `signatures/`, `shingles/`, `rejects/`, `metrics/` and, as the recipe
    wants it, `reserve/`, `paragraphs/` and `frequencies/`. Raises TidemillError when a history index does not fit, StorageError when a store fails.
    """
    store = address.open()
    prefix = dataset_prefix(drop.model, dataset_id) if prefix is None else prefix
    for folder in (*FOLDERS, "work"):  # what an attempt that died has left
        store.delete_folder(f"{prefix}{folder}/")
    rules, sources = recipe.prepare, sources or {store.name: address}
    left_out = [Reserve(number, key) for number, past in enumerate(reserves) for key in past.keys("reserve")]
    parts = parts_of(drop.objects, left_out)
    learned = f"{prefix}work/perplexity.safetensors"
    job = Job(
        store=address,
        prefix=prefix,
        rules=rules,
        sources=sources,
        history=tuple(index_files(history)),
        reserves=tuple(reserves),
        tombstones=tombstones,
        paragraphs=tuple((past.address, key) for past in history for key in past.keys("paragraphs")),
        perplexity=learn_perplexity(store, learned, rules, corpus, parts, sources, rejected_share),
        frequencies=sum_frequencies(store, f"{prefix}work/known.parquet", rules, history, corpus),
        classifier=learn_domains(rules),
    )
    with _own_errors(), beam.Pipeline(options=PipelineOptions(list(runner_options))) as pipeline:
        build(pipeline, job, parts)
    counts = _counts(store, f"{prefix}work/counts-")
    columns = _counts(store, f"{prefix}work/columns-")
    mix = (
        json.loads(store.get(f"{prefix}{REPORT}"))
        if rules.mix is not None and store.exists(f"{prefix}{REPORT}")
        else []
    )
    store.delete_folder(f"{prefix}work/")
    by_name = {name: total(each.get(name, {}) for each in counts) for name in COUNTED}
    rejected, documents = by_name["rejected"], by_name["documents"]
    _require_access(store, drop, rejected.get("access_denied", 0))
    return Dataset(
        dataset_id=dataset_id,
        model=drop.model,
        drop_id=drop.drop_id,
        prefix=prefix,
        history_ids=tuple(past.identity for past in history),
        reused_ids=tuple(past.identity for past in reserves),
        n_objects=len(drop.objects),
        n_read=sum(documents.values()) + sum(rejected.values()),
        n_kept=sum(documents.values()),
        n_reserved=by_name["reserved"].get("documents", 0),
        rejected=dict(sorted(rejected.items())),
        redacted=by_name["redacted"],
        n_documents={split: documents.get(split, 0) for split in SPLITS},
        n_characters=by_name["characters"],
        n_tokens=by_name["tokens"],
        domains=by_name["domains"],
        languages=by_name["languages"],
        columns=total(columns),
        mix=tuple(mix),
    )


def _counts(store: Store, prefix: str) -> list[dict[str, Any]]:
    return [json.loads(store.get(key)) for key in list(store.keys(prefix))]


def _require_access(store: Store, drop: Drop, n_denied: int) -> None:
    """One key that may not be read is a dead letter; when none may be, the credentials are at fault, not the objects."""
    if n_denied and n_denied == len(drop.objects) > 1:
        raise StorageError(
            f"{store.uri('')}, drop {drop.drop_id}",
            expected=f"{n_denied} objects that may be read",
            got="AccessDenied for all of them",
            remedy="give this key the rights to read the inbox; the drop is tried again",
        )


@contextmanager
def _own_errors() -> Iterator[None]:
    """Beam raises RuntimeError for whatever a worker raised; what we raised there is what the caller can act on."""
    try:
        yield
    except RuntimeError as error:
        if "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from None
        found = worker_error(error)
        if found is None:
            raise
        raise found from None
