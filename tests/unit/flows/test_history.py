"""What a drop is compared with: indexes that are compacted as they grow in number, and made anew after an erasure."""

from __future__ import annotations

from typing import Any

import pytest

from flows import history
from flows.context import Context
from flows.datasets import history_of
from flows.erase import erase
from flows.erase_plan import plan
from flows.history import indexes_of, reserves_of
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.records import Dataset
from lake.settings import Settings
from tests.documents import document
from tests.erasure import MODEL, dropped, lines, place, put_recipe


@pytest.fixture
def context(settings: Settings, bucket: Bucket, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(history, "FAN_IN", 2)
    made = Context(settings)
    put_recipe(made)
    return made


@pytest.fixture
def datasets(context: Context) -> list[Dataset]:
    return [dropped(context, {f"{n}.jsonl": lines(document(2 * n), document(2 * n + 1))}) for n in range(7)]


def signatures(context: Context, prefix: str) -> list[dict[str, Any]]:
    keys = list(context.bucket.keys(f"{prefix}signatures/"))
    return [row for key in keys for row in context.bucket.get_table(key).to_pylist()]


def test_datasets_are_compacted_level_by_level(context: Context, datasets: list[Dataset]) -> None:
    indexes = indexes_of(context, MODEL, datasets)
    assert [index.prefix.split("/")[0] for index in indexes] == ["indexes", "indexes", "datasets"]  # of 4, of 2, and 1
    assert indexes[-1].identity == datasets[-1].dataset_id
    apart = [row for dataset in datasets for row in signatures(context, dataset.prefix)]
    assert [row for index in indexes for row in signatures(context, index.prefix)] == apart
    shingles = [len(context.bucket.get_table(key)) for key in context.bucket.keys(f"{indexes[0].prefix}shingles/")]
    assert shingles == [8]


def test_one_more_dataset_leaves_the_others_as_they_are(context: Context, datasets: list[Dataset]) -> None:
    before = indexes_of(context, MODEL, datasets[:6])
    written = {ref.key: ref.last_modified for ref in context.bucket.list("indexes/")}
    after = indexes_of(context, MODEL, datasets)
    assert after == [*before, after[-1]]
    assert {ref.key: ref.last_modified for ref in context.bucket.list("indexes/")} == written


def test_few_datasets_are_read_as_they_are(context: Context, datasets: list[Dataset]) -> None:
    assert [index.identity for index in indexes_of(context, MODEL, datasets[:1])] == [datasets[0].dataset_id]
    assert indexes_of(context, MODEL, []) == []


def test_an_index_that_holds_what_was_erased_goes_and_is_made_anew(context: Context, datasets: list[Dataset]) -> None:
    first, second, last = indexes_of(context, MODEL, history_of(context, MODEL))
    erase(context, plan(context, [place(context, "1.jsonl", "line:2")]))

    standing = history_of(context, MODEL)
    assert [dataset.dataset_id for dataset in standing[2:]] == [dataset.dataset_id for dataset in datasets[2:]]
    assert standing[1].n_kept == 1
    left = {ref.key for ref in context.bucket.list("indexes/")}
    assert not any(key.startswith(first.prefix) for key in left), "it names what is erased"
    assert any(key.startswith(second.prefix) for key in left)
    again = indexes_of(context, MODEL, standing)
    assert [index.identity for index in again[1:]] == [second.identity, last.identity]
    held = {row["place_id"] for row in signatures(context, again[0].prefix)}
    assert len(held) == 7
    assert place(context, "1.jsonl", "line:2") not in held


def test_what_was_left_out_takes_part_once(context: Context, datasets: list[Dataset]) -> None:
    changes: list[dict[str, Any]] = [{"n_reserved": 3}, {"n_reserved": 2, "reused_ids": (datasets[0].dataset_id,)}, {}]
    told = [dataset.model_copy(update=change) for dataset, change in zip(datasets, changes, strict=False)]
    assert [past.identity for past in reserves_of(context, MODEL, told)] == [datasets[1].dataset_id]
    assert [past.identity for past in reserves_of(context, MODEL, told[:1])] == [datasets[0].dataset_id]
