"""The rules of erasure on tables; tests/unit/flows/test_erase.py runs them on whole datasets."""

from __future__ import annotations

import pyarrow as pa

from beam_jobs.erase import ERASED, refuse, rewrite
from beam_jobs.part import SCHEMA, require_same_index, survivors
from lake.bucket import Bucket
from lake.records import Dataset
from lake.tombstones import NOTHING_ERASED, Tombstones, chain_to, newest_of, who_saw


def table() -> pa.Table:
    rows = [
        {"place_id": "a", "given_id": "one", "text": "x", "exact": 5},
        {"place_id": "b", "text": "y", "exact": 2**63 + 7},
        {"place_id": "c", "text": None, "reason": "too_short", "detail": "3 characters"},
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def test_what_was_erased_becomes_a_reject_without_text() -> None:
    refused = refuse(table(), Tombstones(documents=frozenset({"a"}), texts=frozenset({2**63 + 7})))
    assert refused["reason"].to_pylist() == [ERASED, ERASED, "too_short"]
    assert refused["text"].to_pylist() == refused["given_id"].to_pylist() == [None] * 3
    assert len(survivors(refused)) == 0
    assert refused.schema.equals(SCHEMA, check_metadata=True)


def test_nothing_erased_changes_nothing() -> None:
    assert refuse(table(), NOTHING_ERASED).equals(table())


def test_a_rewritten_index_is_still_of_its_specification(bucket: Bucket) -> None:
    old = Dataset(
        dataset_id="old",
        model="m",
        drop_id="d",
        prefix="datasets/m/old/",
        history_ids=("h",),
        n_objects=1,
        n_read=2,
        n_kept=2,
        rejected={},
        redacted={},
        n_documents={"train": 2},
        n_characters={"train": 2},
    )
    index = table().slice(0, 2).select(["place_id", "exact", "signature", "keys"])
    bucket.put_table(f"{old.prefix}signatures/n000000.parquet", index)
    bucket.put_table(f"{old.prefix}signatures/n000001.parquet", index.slice(0, 1))
    new = rewrite(bucket, old, "new", "datasets/m/new.2/", {"a"})
    (ref,) = bucket.list(f"{new.prefix}signatures/")
    left = bucket.get_table(ref.key)
    assert left["place_id"].to_pylist() == ["b"]
    require_same_index(left, ref.key)
    assert (new.dataset_id, new.prefix, new.drop_id, new.history_ids) == ("new", "datasets/m/new.2/", "d", ("h",))
    assert (new.n_read, new.n_kept, new.n_documents) == (0, 0, {"train": 0, "validation": 0, "test": 0})


class Child:
    def __init__(self, version: str, parent: str | None, *dataset_ids: str) -> None:
        self.version, self.parent, self.dataset_ids = version, parent, dataset_ids


def test_descent_follows_parents_and_replacements() -> None:
    replaced_by = {"d1": "d1'", "d1'": "d1''", "d2": "d2'"}
    assert newest_of("d1", replaced_by) == "d1''" and newest_of("d3", replaced_by) == "d3"
    assert chain_to("d1''", replaced_by) == {"d1", "d1'", "d1''"}
    versions = [Child("v1", None, "d1"), Child("v2", "v1", "d2"), Child("v3", None, "d2"), Child("v4", "v3", "d1'")]
    assert who_saw(versions, chain_to("d1''", replaced_by)) == {"v1", "v2", "v4"}
    assert who_saw(versions, ["d2"]) == {"v2", "v3", "v4"}
    assert who_saw(versions, []) == set()


def test_tombstones_are_told_apart_from_none() -> None:
    assert not NOTHING_ERASED
    assert Tombstones(texts=frozenset({0}))
