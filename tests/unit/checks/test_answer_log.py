"""The prediction log is followed: every object once, late ones too, damaged ones never."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from checks.answer_log import LogReader
from lake.bucket import Bucket, BucketAddress
from lake.errors import StorageError
from lake.records import ObjectRef, PredictionLog
from tests.predictions import START, prediction, write_log


def numbers(rows: list[PredictionLog]) -> list[int]:
    return [int(row.request_id.removeprefix("request-")) for row in rows]


def test_each_object_is_read_once_as_it_comes(bucket: Bucket) -> None:
    reader = LogReader(bucket, "docs", START)
    assert reader.read(10) == ([], True)
    write_log(bucket, [prediction(1), prediction(2, shadow=True, status=500)])
    assert numbers(reader.read(10)[0]) == [1, 2]
    assert reader.read(10) == ([], True)
    write_log(bucket, [prediction(3)], writer="replica-b")
    assert numbers(reader.read(10)[0]) == [3]


def test_an_object_that_was_named_earlier_and_written_later_is_read(bucket: Bucket) -> None:
    """Its replica could not reach the store for a while."""
    reader = LogReader(bucket, "docs", START)
    write_log(bucket, [prediction(300)])
    assert numbers(reader.read(10)[0]) == [300]
    write_log(bucket, [prediction(5)], writer="replica-b")
    assert numbers(reader.read(10)[0]) == [5]


def test_many_objects_are_read_in_portions_oldest_first(bucket: Bucket) -> None:
    for number in (4, 1, 3, 2):
        write_log(bucket, [prediction(number)])
    reader = LogReader(bucket, "docs", START)
    portions = [reader.read(3) for _ in range(3)]
    assert [(numbers(rows), is_all) for rows, is_all in portions] == [([1, 2, 3], False), ([4], True), ([], True)]


def test_requests_from_before_are_left_out(bucket: Bucket) -> None:
    write_log(bucket, [prediction(-90_000)])
    write_log(bucket, [prediction(-5), prediction(5)])  # of one object
    assert numbers(LogReader(bucket, "docs", START).read(10)[0]) == [5]


def test_what_was_written_long_ago_is_not_listed_again(bucket: Bucket, address: BucketAddress) -> None:
    """Within the hour that a replica may be late, it is."""
    opened = Bucket(address)
    asked: list[str] = []
    pages = opened.pages

    def noting(prefix: str, start_after: str = "") -> Iterator[Sequence[ObjectRef]]:
        asked.append(start_after)
        return pages(prefix, start_after)

    opened.pages = noting  # type: ignore[method-assign]
    at = datetime(2026, 1, 5, 12, tzinfo=UTC)
    reader = LogReader(opened, "docs", at)
    write_log(bucket, [prediction(1, at=at + timedelta(hours=5))])
    bucket.put("logs/docs/dt=2026-01-05/whatever.parquet", b"")
    reader.read(10)
    write_log(bucket, [prediction(2, at=at + timedelta(hours=7))])
    reader.read(10)
    write_log(bucket, [prediction(3, at=at + timedelta(hours=6, minutes=5))])
    assert numbers(reader.read(10)[0]) == [3]
    assert asked[0] == "logs/docs/dt=2026-01-05/115900"
    assert asked[2] == "logs/docs/dt=2026-01-05/180000"


def test_a_name_of_the_far_future_hides_nothing(bucket: Bucket) -> None:
    now = datetime.now(UTC)
    reader = LogReader(bucket, "docs", now - timedelta(days=1))
    bucket.put("logs/docs/dt=9999-01-01/000000-replica-a-000001.parquet", b"of a clock that went wrong")
    reader.read(10)
    write_log(bucket, [prediction(1, at=now)])
    assert numbers(reader.read(10)[0]) == [1]


def test_a_day_s_end_is_no_end(bucket: Bucket) -> None:
    midnight = START.replace(hour=0) + timedelta(days=1)
    write_log(bucket, [prediction(1, at=midnight - timedelta(seconds=1))])
    write_log(bucket, [prediction(2, at=midnight + timedelta(seconds=1))])
    reader = LogReader(bucket, "docs", midnight - timedelta(minutes=1))
    assert numbers(reader.read(10)[0]) == [1, 2]


def test_another_model_s_log_is_another_s(bucket: Bucket) -> None:
    write_log(bucket, [prediction(1, model="docs-2")])
    assert LogReader(bucket, "docs", START).read(10) == ([], True)


def test_a_damaged_object_is_left_out_with_one_warning(bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    bucket.put("logs/docs/dt=2090-05-01/120002-replica-a-000007.parquet", b"PAR1 cut short")
    bucket.put_table("logs/docs/dt=2090-05-01/120003-replica-a-000008.parquet", pa.table({"request_id": ["x"]}))
    bucket.put("logs/docs/dt=2090-05-01/120004-notes.txt", b"not a log")
    write_log(bucket, [prediction(5)])
    reader = LogReader(bucket, "docs", START)
    with caplog.at_level(logging.WARNING):
        assert numbers(reader.read(10)[0]) == [5]
        assert reader.read(10) == ([], True)
    assert len([record for record in caplog.records if record.name == "checks.answer_log"]) == 2


def test_a_log_of_an_earlier_version_is_read(bucket: Bucket) -> None:
    told = prediction(1).model_dump(exclude={"user", "pinned"})
    bucket.put_table("logs/docs/dt=2090-05-01/120002-replica-a-000007.parquet", pa.Table.from_pylist([told]))
    assert LogReader(bucket, "docs", START).read(10)[0] == [prediction(1)]


def test_while_the_bucket_is_away_nothing_counts_as_read(bucket: Bucket, address: BucketAddress) -> None:
    write_log(bucket, [prediction(1)])
    write_log(bucket, [prediction(2)])
    opened = Bucket(address)
    reader = LogReader(opened, "docs", START)
    get, n_read = opened.get, 0

    def failing(key: str) -> bytes:
        nonlocal n_read
        n_read += 1
        if n_read == 2:
            raise StorageError(key, expected="an answer", got="none", remedy="start it")
        return get(key)

    opened.get = failing  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        reader.read(10)
    assert numbers(reader.read(10)[0]) == [1, 2]
