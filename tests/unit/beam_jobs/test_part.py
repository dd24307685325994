"""Parts: how a drop is cut, and every row of one with its id, source and fingerprint."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from beam_jobs import part
from beam_jobs.part import (
    SCHEMA,
    Part,
    Reserve,
    column,
    parts_of,
    read_part,
    read_reserve,
    require_same_index,
    survivors,
    total,
)
from beam_jobs.simhash import fingerprint
from lake.bucket import Bucket
from lake.errors import StorageError, TidemillError
from lake.recipe import PrepareRules
from lake.records import ObjectRef
from tests.documents import document

RULES = PrepareRules()


def ref(key: str, size_bytes: int = 10) -> ObjectRef:
    return ObjectRef(bucket="b", key=key, etag="e", size_bytes=size_bytes, last_modified=datetime.now(UTC))


def dropped(bucket: Bucket, **bodies: bytes) -> tuple[ObjectRef, ...]:
    for name, body in bodies.items():
        bucket.put(f"inbox/m/{name}.jsonl", body)
    return tuple(bucket.list("inbox/m/"))


def read(bucket: Bucket, made: Part) -> pa.Table:
    """All chunks of a part as one table."""
    return pa.concat_tables(read_part(lambda _: bucket, made, RULES))


def lines(*records: dict[str, Any]) -> bytes:
    return "\n".join(map(json.dumps, records)).encode()


def test_a_drop_is_cut_by_size_and_count_in_the_order_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "PART_BYTES", 100)
    monkeypatch.setattr(part, "PART_OBJECTS", 3)
    refs = [ref("c", 60), ref("a", 60), ref("b", 40), ref("d", 500), ref("e"), ref("f"), ref("g"), ref("h")]
    cut = parts_of(refs)
    assert [[each.key for each in made.objects] for made in cut] == [["a", "b"], ["c"], ["d"], ["e", "f", "g"], ["h"]]
    assert [made.number for made in cut] == [0, 1, 2, 3, 4]
    assert parts_of(list(reversed(refs))) == cut
    assert parts_of([]) == []


def test_every_row_says_where_it_is_from(bucket: Bucket) -> None:
    refs = dropped(bucket, a=lines({"id": "x", "text": document(1)}, {"txt": 1}), b=lines({"text": document(2)}))
    table = read(bucket, Part(0, refs))
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert table.select(["source_uri", "position", "given_id", "reason"]).to_pylist() == [
        {"source_uri": refs[0].uri, "position": "line:1", "given_id": "x", "reason": None},
        {"source_uri": refs[0].uri, "position": "line:2", "given_id": None, "reason": "no_text_field"},
        {"source_uri": refs[1].uri, "position": "line:1", "given_id": None, "reason": None},
    ]
    assert table["source_etag"].to_pylist() == [refs[0].etag, refs[0].etag, refs[1].etag]
    assert table["text"].to_pylist() == [document(1), None, document(2)]


def test_fingerprints_are_those_of_the_texts_kept(bucket: Bucket) -> None:
    refs = dropped(bucket, a=lines({"text": document(1)}, {"text": "short"}, {"text": document(2)}))
    table = survivors(read(bucket, Part(0, refs)))
    for row, number in enumerate((1, 2)):
        expected = fingerprint(document(number))
        assert (column(table, "exact")[row], column(table, "signature")[row]) == (expected.exact, expected.signature)
        assert table["shingles"][row].as_py() == expected.shingles.tolist()


def test_ids_are_unique_whatever_ids_were_given(bucket: Bucket) -> None:
    same = {"id": "same", "text": document(1)}
    table = read(bucket, Part(0, dropped(bucket, a=lines(same, same), b=lines(same))))
    assert table["given_id"].to_pylist() == ["same"] * 3
    assert len(set(table["place_id"].to_pylist())) == 3


def test_ids_stay_when_read_again_and_change_with_the_version(bucket: Bucket) -> None:
    refs = dropped(bucket, a=lines({"text": document(1)}))
    ids = read(bucket, Part(0, refs))["place_id"].to_pylist()
    assert read(bucket, Part(7, refs))["place_id"].to_pylist() == ids
    refs = dropped(bucket, a=lines({"text": document(1)}, {"text": document(2)}))
    assert read(bucket, Part(0, refs))["place_id"].to_pylist()[0] != ids[0]


@pytest.mark.parametrize("batch_rows", [1, 3, 1_000])
def test_rows_do_not_depend_on_how_many_are_held_at_once(
    bucket: Bucket, batch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = dropped(bucket, a=lines(*({"text": document(n)} for n in range(6))))
    expected = read(bucket, Part(0, refs))
    monkeypatch.setattr(part, "BATCH_ROWS", batch_rows)
    assert read(bucket, Part(0, refs)).combine_chunks().equals(expected.combine_chunks())


def test_a_part_comes_in_chunks_of_bounded_size(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = dropped(bucket, a=lines(*({"text": document(n)} for n in range(20))))
    whole = read(bucket, Part(0, refs))
    for name, limit in (("CHUNK_ROWS", 6), ("CHUNK_CHARACTERS", 6 * len(document(0)))):
        with monkeypatch.context() as patch:
            patch.setattr(part, "BATCH_ROWS", 2)
            patch.setattr(part, name, limit)
            chunks = list(read_part(lambda _: bucket, Part(0, refs), RULES))
        assert len(chunks) >= 3
        assert max(map(len, chunks)) <= 8
        assert pa.concat_tables(chunks).combine_chunks().equals(whole.combine_chunks())


def test_what_was_left_out_before_comes_first(bucket: Bucket) -> None:
    cut = parts_of([ref("a")], [Reserve(0, "x"), Reserve(1, "y")])
    assert [(made.number, made.reserve, len(made.objects)) for made in cut] == [
        (0, Reserve(0, "x"), 0),
        (1, Reserve(1, "y"), 0),
        (2, None, 1),
    ]


def test_a_reserve_is_judged_again_by_the_rules_of_now(bucket: Bucket) -> None:
    address = f"{document(2)} Write to jane@example.org."
    refs = dropped(bucket, a=lines({"text": document(1), "id": "x"}, {"text": address}))
    loose = RULES.model_copy(update={"redact": ()})
    table = pa.concat_tables(read_part(lambda _: bucket, Part(0, refs), loose))
    bucket.put_table("reserve.parquet", table)
    assert read_reserve(bucket, "reserve.parquet", loose).equals(table)
    again = read_reserve(bucket, "reserve.parquet", RULES)
    assert again["place_id"].equals(table["place_id"])
    assert again["given_id"].to_pylist() == ["x", None]
    assert "<EMAIL>" in again["text"][1].as_py()


def test_an_object_that_is_another_now_is_a_dead_letter(bucket: Bucket) -> None:
    refs = dropped(
        bucket, a=lines({"text": document(1)}), b=lines({"text": document(2)}), c=lines({"text": document(3)})
    )
    bucket.put("inbox/m/a.jsonl", lines({"text": document(4)}))
    bucket.client.delete_object(Bucket=bucket.name, Key="inbox/m/b.jsonl")
    table = read(bucket, Part(0, refs))
    assert table["reason"].to_pylist() == ["source_changed", "source_changed", None]
    assert table["position"].to_pylist() == ["object", "object", "line:1"]
    assert "picked up as a new object" in table["detail"][0].as_py()


def test_an_object_that_may_not_be_read_is_a_dead_letter(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = dropped(bucket, a=lines({"text": document(1)}))

    def refuse(_: ObjectRef) -> None:
        raise StorageError("s3://b/k", expected="an answer", got="AccessDenied Access Denied", remedy="rights")

    monkeypatch.setattr(bucket, "open_version", refuse)
    assert read(bucket, Part(0, refs))["reason"].to_pylist() == ["access_denied"]


def test_a_store_that_is_away_fails_the_part(bucket: Bucket) -> None:
    refs = dropped(bucket, a=lines({"text": document(1)}))
    away = Bucket(bucket.address.model_copy(update={"endpoint_url": "http://127.0.0.1:9"}))
    with pytest.raises(StorageError, match="is up"):
        read(away, Part(0, refs))


def test_an_empty_part_has_the_schema(bucket: Bucket) -> None:
    assert read(bucket, Part(0, ())).schema.equals(SCHEMA)


def test_an_index_of_another_specification_is_refused(bucket: Bucket) -> None:
    bucket.put_table("x.parquet", pa.table({"id": ["a"]}, schema=pa.schema([("id", pa.string())])))
    with pytest.raises(TidemillError, match="got none; prepare the model's data again"):
        require_same_index(bucket.get_table("x.parquet"), "s3://b/x.parquet")
    bucket.put_table("y.parquet", SCHEMA.empty_table().select(["place_id", "signature"]))
    require_same_index(bucket.get_table("y.parquet"), "s3://b/y.parquet")


def test_columns_of_hashes_come_whole() -> None:
    table = pa.table({"exact": pa.chunked_array([[1, 2**64 - 1], [], [3]], pa.uint64())})
    assert column(table, "exact").tolist() == [1, 2**64 - 1, 3]
    assert column(table, "exact").dtype == np.uint64


def test_totals() -> None:
    assert total([{"a": 1, "b": 2}, {}, {"b": 3}]) == {"a": 1, "b": 5}
