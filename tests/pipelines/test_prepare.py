"""The whole preparation job on a real runner and a real object store."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from beam_jobs import part
from beam_jobs import prepare as job
from beam_jobs.past import Past
from beam_jobs.prepare import prepare
from beam_jobs.runners import LOCAL
from beam_jobs.simhash import fingerprint, jaccard
from lake.bucket import Bucket
from lake.errors import StorageError, TidemillError
from lake.layout import dataset_prefix, inbox_prefix
from lake.ledger.arrivals import drop_id_of
from lake.recipe import PrepareRules, Recipe
from lake.records import SPLITS, Dataset, Drop
from tests.documents import document, edited

RECIPE = Recipe(name="m")


def lines(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def put(bucket: Bucket, **bodies: bytes) -> Drop:
    """Put objects into the inbox, and make a drop of these alone."""
    keys = [inbox_prefix("m") + name.replace("__", ".") for name in bodies]
    for key, body in zip(keys, bodies.values(), strict=True):
        bucket.put(key, body)
    refs = tuple(ref for ref in bucket.list(inbox_prefix("m")) if ref.key in keys)
    return Drop(drop_id=drop_id_of(refs), model="m", objects=refs, closed_at=datetime.now(UTC))


def run(
    bucket: Bucket,
    drop: Drop,
    dataset_id: str = "set-1",
    history: Sequence[Dataset] = (),
    recipe: Recipe = RECIPE,
    options: Sequence[str] = LOCAL,
) -> Dataset:
    past = [Past(dataset.dataset_id, bucket.address, dataset.prefix) for dataset in history]
    return prepare(drop, recipe, bucket.address, dataset_id, past, options)


def rows(bucket: Bucket, dataset: Dataset, folder: str, name: str = "") -> list[dict[str, Any]]:
    return [
        row for ref in bucket.list(f"{dataset.prefix}{folder}/{name}") for row in bucket.get_table(ref.key).to_pylist()
    ]


def places(found: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(row["source_uri"].rsplit("/", 1)[-1], row["position"]) for row in found}


def require_sums(bucket: Bucket, dataset: Dataset) -> None:
    """Everything that was read is somewhere, once."""
    assert dataset.n_read == dataset.n_kept + sum(dataset.rejected.values())
    assert dataset.n_kept == sum(dataset.n_documents.values())
    kept, rejects, metrics = (rows(bucket, dataset, folder) for folder in ("shards", "rejects", "metrics"))
    assert len(kept) == dataset.n_kept
    assert len(rejects) == sum(dataset.rejected.values())
    ids = [row["place_id"] for row in kept + rejects]
    assert len(set(ids)) == len(ids) == dataset.n_read
    assert {row["place_id"] for row in metrics} == set(ids)
    for folder in ("signatures", "shingles"):
        assert [row["place_id"] for row in rows(bucket, dataset, folder)] == _by_source(kept, bucket, dataset)
    for split in SPLITS:
        of_split = rows(bucket, dataset, "shards", f"{split}-")
        assert len(of_split) == dataset.n_documents[split]
        assert sum(row["n_characters"] for row in of_split) == dataset.n_characters.get(split, 0)
    folders = {ref.key.removeprefix(dataset.prefix).split("/")[0] for ref in bucket.list(dataset.prefix)}
    assert folders <= {"shards", "signatures", "shingles", "rejects", "metrics"}, (
        "no work left, and the manifest is the caller's"
    )


def _by_source(kept: list[dict[str, Any]], bucket: Bucket, dataset: Dataset) -> list[str]:
    """The places of what is kept in the order of arrival, as the metrics have it."""
    places = {row["place_id"] for row in kept}
    return [row["place_id"] for row in rows(bucket, dataset, "metrics") if row["place_id"] in places]


@pytest.fixture
def mixed(bucket: Bucket) -> Drop:
    """60 documents in 6 objects; 10 exact and 10 near copies among them, across objects and within."""
    texts = [document(n) for n in range(40)]
    texts += [document(n).upper() for n in range(10)]
    texts += [edited(document(n), seed=n) for n in range(20, 30)]
    return put(bucket, **{f"o{n}__jsonl": lines(*texts[n::6]) for n in range(6)})


def in_order(bucket: Bucket, drop: Drop) -> Iterator[tuple[tuple[str, str], str]]:
    for ref in sorted(drop.objects, key=lambda ref: ref.key):
        for number, line in enumerate(bucket.get(ref.key).decode().splitlines(), start=1):
            yield (ref.key.rsplit("/", 1)[-1], f"line:{number}"), json.loads(line)["text"]


def test_the_kept_are_those_of_a_plain_loop(bucket: Bucket, mixed: Drop) -> None:
    rules, kept, dropped = RECIPE.prepare, [], {}
    for place, text in in_order(bucket, mixed):
        found = fingerprint(text)
        like = [
            (other, jaccard(found.shingles, theirs.shingles))
            for other, theirs in kept
            if (found.signature ^ theirs.signature).bit_count() <= rules.max_hamming
        ]
        like = [(other, similarity) for other, similarity in like if similarity >= rules.min_jaccard]
        if like:
            dropped[place] = max(similarity for _, similarity in like)
        else:
            kept.append((place, found))

    dataset = run(bucket, mixed)

    require_sums(bucket, dataset)
    # SimHash finds nearly all near copies, not all; which ones it misses depends on the prose of this Python.
    n_near = len(dropped) - 10
    assert n_near >= 8
    assert dataset.rejected == {"exact_duplicate": 10, "near_duplicate": n_near}
    assert (dataset.n_read, dataset.n_kept, dataset.n_objects) == (60, 50 - n_near, 6)
    assert places(rows(bucket, dataset, "shards")) == {place for place, _ in kept}
    rejects = rows(bucket, dataset, "rejects")
    assert places(rejects) == set(dropped)
    ids_kept = {row["id"] for row in rows(bucket, dataset, "shards")}
    for row in rejects:
        assert row["duplicate_of"] in ids_kept
        place = (row["source_uri"].rsplit("/", 1)[-1], row["position"])
        assert row["similarity"] == pytest.approx(dropped[place], abs=1e-6)
        assert row["similarity"] >= rules.min_jaccard


@pytest.mark.parametrize(
    ("part_objects", "options"),
    [
        (1, LOCAL),
        (4, LOCAL),
        (1, (*LOCAL, "--direct_num_workers=2", "--direct_running_mode=multi_threading")),
        (2, (*LOCAL, "--direct_num_workers=2", "--direct_running_mode=multi_processing")),
    ],
    ids=["a part an object", "two parts", "two threads", "two processes"],
)
def test_the_outcome_does_not_depend_on_how_the_work_is_cut(
    bucket: Bucket, mixed: Drop, monkeypatch: pytest.MonkeyPatch, part_objects: int, options: Sequence[str]
) -> None:
    def outcome(dataset: Dataset) -> list[tuple[Any, ...]]:
        found = rows(bucket, dataset, "rejects")
        told = [(row["id"], row["reason"], row["duplicate_of"], row["similarity"]) for row in found]
        return sorted(told) + sorted((row["id"], row["text"]) for row in rows(bucket, dataset, "shards"))

    expected = run(bucket, mixed)
    monkeypatch.setattr(part, "PART_OBJECTS", part_objects)
    cut = run(bucket, mixed, "set-2", options=options)
    assert outcome(cut) == outcome(expected)
    assert cut.model_copy(update={"dataset_id": "set-1", "prefix": expected.prefix}) == expected


def test_a_second_drop_is_deduplicated_against_history(bucket: Bucket) -> None:
    first = run(bucket, put(bucket, first__jsonl=lines(*(document(n) for n in range(20)))))
    again = [document(n) for n in range(5)] + [edited(document(n), seed=n) for n in range(5, 10)]
    drop = put(bucket, second__jsonl=lines(*again, *(document(n) for n in range(100, 110)), document(100)))
    second = run(bucket, drop, "set-2", [first])

    require_sums(bucket, second)
    assert second.history_ids == ("set-1",)
    assert second.rejected == {"exact_duplicate": 6, "near_duplicate": 5}
    assert second.n_kept == 10
    old = {row["id"]: row["text"] for row in rows(bucket, first, "shards")}
    new = {row["id"]: row["text"] for row in rows(bucket, second, "shards")}
    assert set(new.values()) == {document(n) for n in range(100, 110)}
    of_history = [row for row in rows(bucket, second, "rejects") if row["duplicate_of"] in old]
    assert len(of_history) == 10
    require_sums(bucket, first)  # untouched

    third = run(bucket, drop, "set-3", [first, second])
    assert third.n_kept == 0
    assert {row["duplicate_of"] for row in rows(bucket, third, "rejects")} <= set(old) | set(new)


def test_without_history_the_same_drop_is_kept_again(bucket: Bucket) -> None:
    drop = put(bucket, first__jsonl=lines(*(document(n) for n in range(5))))
    run(bucket, drop)
    assert run(bucket, drop, "set-2").n_kept == 5


def test_every_bad_object_is_a_dead_letter_and_the_rest_goes_on(bucket: Bucket) -> None:
    good = {n: document(n) for n in range(12)}
    packed = gzip.compress(lines(good[4], good[5], *(document(n) for n in range(200, 260))))
    page = f"<html><head><title>t</title></head><body><article><p>{good[6]}</p></article></body></html>"
    bucket.put("table.parquet", b"")
    bucket.put_table("scratch", pa.table({"text": [good[7], None], "id": ["x", "y"]}))
    dataset = run(
        bucket,
        put(
            bucket,
            good__jsonl=lines(good[0], good[1]),
            mixed__jsonl=lines(good[2]) + b'{"text": \n' + b'{"txt": "x"}\n' + lines(good[3]),
            cut__jsonl__gz=packed[: len(packed) // 2],
            page__html=page.encode(),
            table__parquet=bucket.get("scratch"),
            broken__parquet=bucket.get("scratch")[:-30],
            windows__txt=("Où est passé l’été? " * 20).encode("cp1252"),
            muddled__txt=document(9).encode() + b" \x81\xfe\x9d " + "Où est l’été?".encode("cp1252"),
            empty__jsonl=b"",
            model__pkl=b"\x80\x04K\x01.",
            plain__txt=good[8].encode("utf-16"),
        ),
    )
    require_sums(bucket, dataset)
    rejects = rows(bucket, dataset, "rejects")
    told = {
        row["source_uri"].rsplit("/", 1)[-1] + " " + row["position"].split(":")[0]: row["reason"] for row in rejects
    }
    assert told == {
        "mixed.jsonl line": "no_text_field",
        "cut.jsonl.gz byte": "truncated_gzip",
        "table.parquet row": "no_text_field",
        "broken.parquet object": "bad_parquet",
        "windows.txt object": "wrong_language",  # French, read as what it is written in
        "muddled.txt byte": "bad_encoding",
        "empty.jsonl object": "empty_object",
        "model.pkl object": "unsupported_format",
    }
    assert dataset.rejected["bad_json"] == 1
    assert all(row["detail"] for row in rejects)
    texts = {row["text"] for row in rows(bucket, dataset, "shards")}
    assert {good[n] for n in (0, 1, 2, 3, 4, 6, 7, 8)} <= texts


def test_objects_overwritten_or_deleted_meanwhile_are_left_out(bucket: Bucket) -> None:
    drop = put(bucket, **{f"o{n}__jsonl": lines(document(n)) for n in range(4)})
    bucket.put(inbox_prefix("m") + "o1.jsonl", lines(document(50)))
    bucket.client.delete_object(Bucket=bucket.name, Key=inbox_prefix("m") + "o2.jsonl")
    dataset = run(bucket, drop)
    require_sums(bucket, dataset)
    assert dataset.rejected == {"source_changed": 2}
    assert {row["text"] for row in rows(bucket, dataset, "shards")} == {document(0), document(3)}


def test_a_drop_of_which_nothing_is_left_is_an_empty_dataset(bucket: Bucket) -> None:
    drop = put(bucket, only__jsonl=lines(document(1)))
    bucket.put(inbox_prefix("m") + "only.jsonl", lines(document(2)))
    dataset = run(bucket, drop)
    require_sums(bucket, dataset)
    assert (dataset.n_read, dataset.n_kept, dataset.rejected) == (1, 0, {"source_changed": 1})
    assert dataset.n_documents == {"train": 0, "validation": 0, "test": 0}


def test_documents_of_one_id_are_kept_apart(bucket: Bucket) -> None:
    body = "".join(json.dumps({"id": "same", "text": document(n)}) + "\n" for n in (1, 2, 1)).encode()
    dataset = run(bucket, put(bucket, a__jsonl=body))
    require_sums(bucket, dataset)
    assert dataset.rejected == {"exact_duplicate": 1}
    found = rows(bucket, dataset, "shards") + rows(bucket, dataset, "rejects")
    assert {row["id"] for row in found} == {"same"}
    assert {row["duplicate_of"] for row in rows(bucket, dataset, "rejects")} == {"same"}


def test_a_run_after_one_that_died_leaves_what_one_run_leaves(
    bucket: Bucket, mixed: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "PART_OBJECTS", 2)
    dataset = run(bucket, mixed)
    expected = [(ref.key, bucket.digest(ref.key)) for ref in bucket.list(dataset.prefix)]
    bucket.delete_folder(dataset.prefix)

    # Half an attempt, cut into other parts: its files would stay beside the new ones.
    monkeypatch.setattr(part, "PART_OBJECTS", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(job, "total", _interrupted)
        run(bucket, mixed)
    assert len(list(bucket.list(dataset.prefix))) > len(expected)

    monkeypatch.setattr(part, "PART_OBJECTS", 2)
    assert run(bucket, mixed) == dataset
    assert [(ref.key, bucket.digest(ref.key)) for ref in bucket.list(dataset.prefix)] == expected


def _interrupted(_: object) -> dict[str, int]:
    raise KeyboardInterrupt


def test_rules_of_the_recipe_reach_the_workers(bucket: Bucket) -> None:
    rules = PrepareRules(min_characters=1, min_jaccard=1.0, text_field="body", validation_share=0.5, test_share=0.4)
    body = "".join(
        json.dumps({"body": text}) + "\n" for text in (document(1), edited(document(1)), "Short one.")
    ).encode()
    dataset = run(bucket, put(bucket, a__jsonl=body), recipe=Recipe(name="m", prepare=rules))
    assert (dataset.n_kept, dataset.rejected) == (3, {})


def test_an_index_of_another_specification_is_refused(bucket: Bucket) -> None:
    first = run(bucket, put(bucket, a__jsonl=lines(document(1))))
    (ref,) = bucket.list(f"{first.prefix}signatures/")
    bucket.put_table(ref.key, bucket.get_table(ref.key).replace_schema_metadata({}))
    with pytest.raises(TidemillError) as caught:
        run(bucket, put(bucket, b__jsonl=lines(document(2))), "set-2", [first])
    assert caught.value.where == f"s3://{bucket.name}/{ref.key}"


def test_a_store_that_fails_in_a_worker_is_told_as_such(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = put(bucket, a__jsonl=lines(document(1)))

    def fail(key: str, table: pa.Table) -> None:
        raise StorageError(key, expected="an answer from the store", got="InternalError", remedy="free some space")

    monkeypatch.setattr("lake.bucket.Bucket.put_table", lambda self, key, table: fail(key, table))
    with pytest.raises(StorageError, match="free some space"):
        run(bucket, drop)


def test_secrets_are_not_shown(bucket: Bucket) -> None:
    assert bucket.address.secret_access_key is not None
    assert bucket.address.secret_access_key not in repr(bucket.address)
    assert dataset_prefix("m", "x").startswith("datasets/")
