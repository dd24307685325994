"""Erasure end to end on a real store and ledger, without Beam and training."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from flows.context import Context
from flows.datasets import current_datasets, datasets_by_id, history_of, seen_by
from flows.erase import erase, resume_erasures
from flows.erase_plan import plan
from flows.lineage import lineage
from lake.bucket import Bucket
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.records import Dataset
from lake.settings import Settings
from tests.documents import document
from tests.erasure import MODEL, arrive, dropped, ids_of, lines, place, prepare, put_recipe, traces, version

SECRET = "the heron of Aldermoor"


def secret(number: int) -> str:
    return f"{document(number)} And this tells of {SECRET}, number {number}."


@pytest.fixture
def context(settings: Settings, bucket: Bucket, ledger: Ledger) -> Context:
    made = Context(settings)
    put_recipe(made)
    return made


@pytest.fixture
def first(context: Context) -> Dataset:
    """A drop of two files, trained on by v1: `a.jsonl` holds the secret twice, `b.jsonl` not."""
    files = {
        "a.jsonl": lines(*map(document, range(6)), secret(100), secret(101)),
        "b.jsonl": lines(*map(document, range(10, 18))),
    }
    dataset = dropped(context, files, "trained")
    version(context, [dataset])
    return dataset


def listing(context: Context) -> dict[str, str]:
    return {ref.key: ref.etag for ref in context.bucket.list("")}


def dump(context: Context) -> list[Any]:
    with context.ledger.engine.connect() as connection:
        return list(connection.connection.iterdump())  # type: ignore[attr-defined]


def run(context: Context, *subjects: str, **options: Any) -> Any:
    done = erase(context, plan(context, subjects, **options))
    assert [one.state for one in done] == ["done"] * len(done)
    return done[0]


def require_sums(context: Context, dataset: Dataset) -> None:
    """The record, the files and the manifest tell the same."""

    def rows(folder: str) -> list[dict[str, Any]]:
        refs = context.bucket.list(f"{dataset.prefix}{folder}/")
        return [row for ref in refs for row in context.bucket.get_table(ref.key).to_pylist()]

    kept, rejects = rows("shards"), rows("rejects")
    assert (len(kept), len(rejects)) == (dataset.n_kept, sum(dataset.rejected.values()))
    assert dataset.n_read == dataset.n_kept + len(rejects) == len(rows("metrics"))
    assert {row["id"] for row in rows("signatures")} == {row["id"] for row in kept}
    assert sum(dataset.n_characters.values()) == sum(row["n_characters"] for row in kept)
    assert context.bucket.exists(f"{dataset.prefix}manifest.json")


def test_an_object_is_erased_and_the_rest_of_its_dataset_stays(context: Context, first: Dataset) -> None:
    erasure = run(context, "inbox/docs/a.jsonl")
    assert traces(context, SECRET) == []
    (left,) = datasets_by_id(context, MODEL, [first.dataset_id])
    assert left.dataset_id != first.dataset_id
    assert left.n_kept == 8
    require_sums(context, left)
    assert list(context.bucket.list(first.prefix)) == []
    assert history_of(context, MODEL) == seen_by(context, MODEL, "v1") == current_datasets(context, MODEL) == [left]
    assert {ref.key: ref.state for ref in context.ledger.arrivals.objects(MODEL)} == {
        "inbox/docs/a.jsonl": "erased",
        "inbox/docs/b.jsonl": "assigned",
    }
    assert context.bucket.exists("inbox/docs/a.jsonl"), "the inbox is the user's"
    assert erasure.found["n_documents"] == 8
    assert SECRET not in "".join(dump(context))


def test_documents_are_erased_by_id_and_by_the_id_they_were_given(context: Context) -> None:
    body = b'{"text": "%s", "id": "note-1"}\n{"text": "%s", "id": "note-10"}\n{"text": "%s"}\n'
    texts = tuple(secret(number).encode() for number in (1, 2, 3))
    dataset = dropped(context, {"a.jsonl": body % texts, "b.jsonl": lines(*map(document, range(10, 14)))})
    run(context, "note-1", place(context, "a.jsonl", "line:3"))
    (left,) = datasets_by_id(context, MODEL, [dataset.dataset_id])
    assert left.n_kept == dataset.n_kept - 2
    assert len(ids_of(context, left, SECRET)) == 1, "note-10 is another document"
    require_sums(context, left)
    run(context, "note-10")
    assert traces(context, SECRET) == []


def test_all_parts_of_a_long_document_go_with_its_given_id(context: Context) -> None:
    long = "\n\n".join(secret(number) for number in range(40))
    body = lines(document(99)) + b'{"text": "%s", "id": "book"}\n' % long.replace("\n", "\\n").encode()
    dataset = dropped(context, {"a.jsonl": body})
    assert dataset.n_kept > 2
    run(context, "book")
    (left,) = datasets_by_id(context, MODEL, [dataset.dataset_id])
    assert left.n_kept == 1
    assert traces(context, SECRET) == []


def test_a_dry_run_changes_nothing(context: Context, first: Dataset) -> None:
    before = listing(context), dump(context)
    (found,) = plan(context, ["inbox/docs/a.jsonl"])
    assert (len(found.documents), found.datasets, found.versions) == (8, {first.dataset_id: 8}, (("v1", "champion"),))
    assert (listing(context), dump(context)) == before


@pytest.mark.parametrize("subject", ["inbox/docs/none.jsonl", "0" * 32, "no-such-id", "inbox/other/a.jsonl"])
def test_an_unknown_subject_is_refused(context: Context, first: Dataset, subject: str) -> None:
    with pytest.raises(TidemillError, match=f"erasure of {subject}: expected objects that the ledger has seen"):
        plan(context, [subject])


def test_another_bucket_and_another_model_are_refused(context: Context, first: Dataset) -> None:
    with pytest.raises(TidemillError, match=r"s3://elsewhere/inbox/docs/a\.jsonl: expected an object below"):
        plan(context, ["s3://elsewhere/inbox/docs/a.jsonl"])
    with pytest.raises(TidemillError, match="model none: expected one of docs"):
        plan(context, ["inbox/docs/a.jsonl"], "none")
    with pytest.raises(TidemillError, match="erasure of nothing"):
        plan(context, [])


def test_what_is_unknown_among_known_ones_is_told(context: Context, first: Dataset) -> None:
    (found,) = plan(context, ["inbox/docs/a.jsonl", "inbox/docs/none.jsonl", "no-such-id"])
    assert found.unknown == ("inbox/docs/none.jsonl", "no-such-id")


def test_the_same_again_is_the_same_erasure(context: Context, first: Dataset) -> None:
    (subject,) = ids_of(context, first, "number 100")
    erasure = run(context, subject)
    before = listing(context)
    assert run(context, subject).erasure_id == erasure.erasure_id
    assert listing(context) == before
    assert run(context, subject, "inbox/docs/a.jsonl").erasure_id != erasure.erasure_id


def test_an_empty_replacement_harms_nothing(context: Context, first: Dataset) -> None:
    waiting = dropped(context, {"c.jsonl": lines(secret(7), secret(8))})
    run(context, "inbox/docs/a.jsonl", "inbox/docs/b.jsonl", "inbox/docs/c.jsonl")
    assert traces(context, "The server") == traces(context, SECRET) == []
    left = {dataset.dataset_id: dataset for dataset in current_datasets(context, MODEL)}
    assert [dataset.n_kept for dataset in left.values()] == [0, 0]
    states = context.ledger.drops.states(MODEL)
    assert [state.state for state in states] == ["trained", "erased"], "nothing of the second is left to train on"
    assert {state.dataset_id for state in states} == set(left) and waiting.dataset_id not in left
    assert [dataset.n_kept for dataset in history_of(context, MODEL)] == [0]
    assert arrive(context, {"d.jsonl": lines(document(50))}).drop_id


def test_a_drop_that_waits_to_be_read_loses_its_erased_objects(context: Context) -> None:
    both = arrive(context, {"a.jsonl": lines(secret(1)), "b.jsonl": lines(document(2))})
    run(context, "inbox/docs/a.jsonl")
    claimed = context.ledger.drops.claim(both.drop_id, "me", datetime.now(UTC))
    assert claimed is not None
    assert [ref.key for ref in claimed.objects] == ["inbox/docs/b.jsonl"]
    context.ledger.drops.move(both.drop_id, "preparing", "closed", datetime.now(UTC))
    run(context, "inbox/docs/b.jsonl")
    assert [state.state for state in context.ledger.drops.states(MODEL)] == ["erased"]


def test_an_erased_object_is_not_listed_again_but_a_new_version_is(context: Context, first: Dataset) -> None:
    run(context, "inbox/docs/a.jsonl")
    arrivals = context.ledger.arrivals
    assert arrivals.reconcile(MODEL, context.bucket.pages("inbox/docs/"), datetime.now(UTC)) == 0
    drop = arrive(context, {"a.jsonl": lines(document(60))})
    assert [ref.key for ref in drop.objects] == ["inbox/docs/a.jsonl"]


def test_a_drop_that_is_being_prepared_is_waited_for_and_cleaned(context: Context) -> None:
    drop = arrive(context, {"a.jsonl": lines(secret(1), document(1)), "b.jsonl": lines(document(2))})
    claimed = context.ledger.drops.claim(drop.drop_id, "me", datetime.now(UTC))
    assert claimed is not None
    (open_one,) = erase(context, plan(context, ["inbox/docs/a.jsonl"]))
    assert open_one.state == "open"
    dataset = prepare(context, claimed)  # it has read the erased object all the same
    assert traces(context, SECRET)
    assert resume_erasures(context) == []
    now = datetime.now(UTC)
    assert context.ledger.drops.move(drop.drop_id, "preparing", "waiting", now, dataset_id=dataset.dataset_id)
    other = arrive(context, {"c.jsonl": lines(document(3))})
    assert context.ledger.drops.claim(other.drop_id, "me", now) is None, "no history that changes under its hands"
    assert resume_erasures(context) == [open_one.erasure_id]
    assert traces(context, SECRET) == []
    assert [dataset.n_kept for dataset in history_of(context, MODEL)] == [1]
    assert context.ledger.drops.claim(other.drop_id, "me", now) is not None


def test_other_sources_of_the_text_are_told_and_taken_along_if_asked_for(context: Context) -> None:
    first = dropped(context, {"a.jsonl": lines(secret(1), document(1))}, "trained")
    (kept,) = ids_of(context, first, SECRET)
    second = dropped(context, {"b.jsonl": lines(secret(1), document(2))}, copy_of={0: kept})
    copy = place(context, "b.jsonl", "line:1")
    (found,) = plan(context, [kept])
    assert [(one.id, one.duplicate_of) for one in found.copies] == [(copy, kept)]
    assert found.copies[0].source_uri.endswith("inbox/docs/b.jsonl") and found.copies[0].position == "line:1"
    (found,) = plan(context, ["inbox/docs/b.jsonl"])
    (original,) = found.originals
    assert original.id == kept and original.source_uri.endswith("inbox/docs/a.jsonl")

    run(context, copy, with_duplicates=True)
    assert traces(context, SECRET) == []
    left = datasets_by_id(context, MODEL, [first.dataset_id, second.dataset_id])
    assert [(dataset.n_read, dataset.n_kept, dataset.rejected) for dataset in left] == [(1, 1, {}), (1, 1, {})]


def test_left_over_attempts_of_dead_preparations_go_too(context: Context, first: Dataset) -> None:
    attempt = context.ledger.stages.begin("dead", MODEL, "datasets/docs/dead/")
    assert attempt is not None
    context.bucket.put(f"{attempt.prefix}work/n000000.parquet", SECRET.encode())
    run(context, "inbox/docs/a.jsonl")
    assert traces(context, SECRET) == []
    assert not context.ledger.stages.commit(attempt, stage="prepare", manifest_key="", record={}, duration_s=1.0)


def test_two_erasures_at_once(context: Context, first: Dataset, settings: Settings) -> None:
    subjects = [ids_of(context, first, f"number {number}")[0] for number in (100, 101)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda subject: erase(Context(settings), plan(Context(settings), [subject])), subjects))
    resume_erasures(context)
    assert traces(context, SECRET) == []
    (left,) = current_datasets(context, MODEL)
    assert left.n_kept == first.n_kept - 2
    require_sums(context, left)
    assert [erasure.state for erasure in context.ledger.erasures.all()] == ["done", "done"]
    folders = {ref.key.split("/")[2] for ref in context.bucket.list("datasets/docs/")}
    assert folders == {left.prefix.split("/")[2]}


def test_ten_thousand_ids(context: Context) -> None:
    n = 600
    dataset = dropped(context, {"a.jsonl": lines(*(f"{document(k, 4)} {SECRET}." for k in range(n)), document(n))})
    ids = ids_of(context, dataset, SECRET)
    assert len(ids) == n
    (found,) = plan(context, [*ids, *(f"{number:032x}" for number in range(10_000 - n))])
    assert len(found.unknown) == 10_000 - n
    (done,) = erase(context, [found])
    assert (done.state, done.n_subjects) == ("done", n)
    assert traces(context, SECRET) == []


class Killed(BaseException):
    """Nothing catches it: as good as SIGKILL, for all that is on disk."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Die at the step-th call of store or ledger. Gives a list that holds the number of calls so far."""
    calls = [0]
    plain = Bucket.explained

    def count(*_: object) -> None:
        calls[0] += 1
        if calls[0] >= step:
            raise Killed

    def explained(self: Bucket, what: str) -> Any:
        count()
        return plain(self, what)

    event.listen(Engine, "begin", count)
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "explained", explained)
        try:
            yield calls
        finally:
            event.remove(Engine, "begin", count)


def test_killed_at_every_step_it_is_done_in_the_end(
    context: Context, first: Dataset, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = plan(context, ["inbox/docs/a.jsonl"])
    for step in range(1, 1_000, 3):
        try:
            with killed_at(step, monkeypatch):
                erase(Context(settings), found)
            break
        except Killed:
            pass
    assert step > 20, "it has died often"
    assert len(context.ledger.erasures.all()) == 1
    assert traces(context, SECRET) == []
    (left,) = history_of(context, MODEL)
    require_sums(context, left)
    folders = {ref.key.split("/")[2] for ref in context.bucket.list("datasets/docs/")}
    assert folders == {left.prefix.split("/")[2]}


@pytest.mark.parametrize("step", [9, 20, 35])
def test_killed_once_the_next_start_finishes_it(
    context: Context, first: Dataset, settings: Settings, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    found = plan(context, ["inbox/docs/a.jsonl"])
    with killed_at(step, monkeypatch), pytest.raises(Killed):
        erase(Context(settings), found)
    assert len(resume_erasures(Context(settings))) == 1
    assert resume_erasures(Context(settings)) == []
    assert traces(context, SECRET) == []
    assert [dataset.n_kept for dataset in history_of(context, MODEL)] == [8]


def test_lineage_tells_what_is_erased_and_what_stands_for_it(context: Context, first: Dataset) -> None:
    erasure = run(context, "inbox/docs/a.jsonl")
    (up,) = lineage(context, "inbox/docs/a.jsonl").children
    assert up.detail.startswith(f"erased (erasure {erasure.erasure_id}), drop ")
    assert f"stands for {first.dataset_id}, of which part was erased" in up.children[0].detail
    assert up.children[0].children[0].detail == f"champion, has seen what erasure {erasure.erasure_id} erased"
    down = next(node for node in lineage(context, "docs/v1").children if node.kind == "dataset")
    objects = {node.name.rpartition("/")[2]: node.detail for node in down.children[-1].children}
    assert objects["a.jsonl"].startswith("erased") and objects["b.jsonl"].startswith("etag")
