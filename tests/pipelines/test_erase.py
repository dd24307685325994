"""Prepare with Beam → erase → prepare again: nothing of it comes back, by no way that data comes in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from flows import prepare_task
from flows.context import Context
from flows.datasets import datasets_by_id
from flows.erase import erase
from flows.erase_plan import plan
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.records import Dataset, Drop
from lake.settings import Settings
from tests.documents import document, edited
from tests.erasure import MODEL, arrive, lines, put_recipe, texts, traces

SECRET = "the heron of Aldermoor"
TEXT = f"{document(100)} And this tells of {SECRET}."


@pytest.fixture
def context(settings: Settings, bucket: Bucket, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(prepare_task, "create_table_artifact", lambda *_, **__: None)
    made = Context(settings)
    put_recipe(made)
    return made


def prepared(context: Context, drop: Drop) -> Dataset:
    """As the pipeline does it, without Prefect."""
    now = datetime.now(UTC)
    claimed = context.ledger.drops.claim(drop.drop_id, "test", now)
    assert claimed is not None
    dataset = prepare_task.prepare.fn(context, claimed.drop_id)
    assert context.ledger.drops.move(drop.drop_id, "preparing", "waiting", now, dataset_id=dataset.dataset_id)
    return dataset


def dropped(context: Context, files: Mapping[str, bytes]) -> Dataset:
    return prepared(context, arrive(context, files))


def test_erased_text_comes_back_by_no_way(context: Context) -> None:
    first = dropped(context, {"a.jsonl": lines(TEXT, document(1)), "b.jsonl": lines(document(2), document(3))})
    second = dropped(context, {"c.jsonl": lines(TEXT, document(2), document(4))})
    assert second.rejected == {"exact_duplicate": 2}
    (found,) = plan(context, ["inbox/docs/a.jsonl"])
    assert [copy.source_uri.rsplit("/", 1)[-1] for copy in found.copies] == ["c.jsonl"]
    erase(context, [found])
    assert traces(context, SECRET) == []
    (left,) = datasets_by_id(context, MODEL, [first.dataset_id])
    assert sorted(texts(context, left)) == sorted([document(2), document(3)])

    # Under another key, from the source whose copy was a duplicate once, in a new version of the erased object; and
    # what is left of the old dataset is still what new documents are compared with.
    third = dropped(
        context, {"d.jsonl": lines(TEXT, edited(document(3)), document(5)), "a.jsonl": lines(TEXT, document(6))}
    )
    assert third.rejected == {"erased": 2, "near_duplicate": 1}
    assert sorted(texts(context, third)) == sorted([document(5), document(6)])
    assert left.dataset_id in third.history_ids and first.dataset_id not in third.history_ids
    assert traces(context, SECRET) == []

    # A replay of the first drop, as of one that was refused.
    drop_id = left.drop_id
    assert context.ledger.drops.move(drop_id, "waiting", "refused", datetime.now(UTC))
    drop = context.ledger.drops.get(drop_id)
    assert drop is not None
    again = prepared(context, drop)
    assert SECRET not in "".join(texts(context, again))
    assert traces(context, SECRET) == []
