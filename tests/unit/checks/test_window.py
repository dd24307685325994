from __future__ import annotations

import logging
from datetime import timedelta

import pyarrow as pa
import pytest

from checks.window import read_log, split_windows
from lake.bucket import Bucket
from tests.predictions import START, prediction, write_log


def ids(bucket: Bucket, model: str = "docs", since_s: float | None = None) -> list[str]:
    since = None if since_s is None else START + timedelta(seconds=since_s)
    return [row.request_id for row in read_log(bucket.address, model, since)]


def test_rows_of_all_objects_are_read_oldest_first(bucket: Bucket) -> None:
    write_log(bucket, [prediction(3), prediction(1)])
    write_log(bucket, [prediction(2)], writer="replica-b")
    rows = read_log(bucket.address, "docs", None)
    assert rows == [prediction(1), prediction(2), prediction(3)]


def test_a_model_without_a_log_has_no_rows(bucket: Bucket) -> None:
    write_log(bucket, [prediction(1)])
    assert ids(bucket, "other") == []


def test_a_retried_request_counts_once(bucket: Bucket) -> None:
    write_log(bucket, [prediction(5, response="first"), prediction(6)])
    again = prediction(5, response="again", at=START + timedelta(seconds=7), version="v2")
    write_log(bucket, [again], writer="replica-b")
    rows = read_log(bucket.address, "docs", None)
    assert [(row.request_id, row.response) for row in rows] == [
        ("request-00005", "first"),
        ("request-00006", "Call sorted()."),
    ]


def test_a_failed_first_try_does_not_hide_the_answer(bucket: Bucket) -> None:
    write_log(bucket, [prediction(5, status=503)])
    write_log(bucket, [prediction(5, at=START + timedelta(seconds=6))], writer="replica-b")
    assert [row.status for row in read_log(bucket.address, "docs", None)] == [200]


def test_shadow_traffic_and_failed_requests_are_left_out(bucket: Bucket) -> None:
    write_log(bucket, [prediction(1, shadow=True), prediction(2, status=500), prediction(3, status=429), prediction(4)])
    assert ids(bucket) == ["request-00004"]


def test_a_damaged_object_is_skipped_with_a_warning(bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    write_log(bucket, [prediction(1)])
    bucket.put("logs/docs/dt=2090-05-01/120002-replica-a-000007.parquet", b"PAR1 cut short")
    bucket.put_table("logs/docs/dt=2090-05-01/120003-replica-a-000008.parquet", pa.table({"request_id": ["x"]}))
    bucket.put("logs/docs/dt=2090-05-01/notes.txt", b"not a log")
    with caplog.at_level(logging.WARNING):
        assert ids(bucket) == ["request-00001"]
    warned = [record.getMessage() for record in caplog.records if record.name == "checks.window"]
    assert len(warned) == 2
    assert "120002-replica-a-000007.parquet" in warned[0]
    assert "120003-replica-a-000008.parquet" in warned[1]


def test_a_log_that_an_earlier_version_wrote_is_read(bucket: Bucket) -> None:
    told = prediction(1).model_dump(exclude={"user", "pinned"})
    bucket.put_table("logs/docs/dt=2090-05-01/120002-replica-a-000007.parquet", pa.Table.from_pylist([told]))
    assert read_log(bucket.address, "docs", None) == [prediction(1)]


def test_only_what_came_since_is_read(bucket: Bucket) -> None:
    write_log(bucket, [prediction(1), prediction(2)])
    assert ids(bucket, since_s=2) == ["request-00002"]


def test_rows_written_after_midnight_are_found_where_they_lie(bucket: Bucket) -> None:
    yesterday, today = prediction(1, at=START.replace(hour=23, minute=59)), prediction(2, at=START + timedelta(days=1))
    write_log(bucket, [yesterday, today])  # named by the newer day
    since = START.replace(hour=23)
    assert [row.request_id for row in read_log(bucket.address, "docs", since)] == ["request-00001", "request-00002"]


def test_rows_of_long_ago_are_not_fetched(bucket: Bucket) -> None:
    write_log(bucket, [prediction(1, at=START - timedelta(days=3))])
    bucket.put("logs/docs/dt=2090-04-20/damaged.parquet", b"would be warned about")
    write_log(bucket, [prediction(2)])
    assert ids(bucket, since_s=0) == ["request-00002"]


def test_the_reference_comes_first_and_windows_do_not_overlap() -> None:
    rows = [prediction(number) for number in range(11)]
    reference, windows = split_windows(rows, 4, 3)
    assert reference == rows[:4]
    assert windows == [rows[4:7], rows[7:10]]  # the last row waits for two more


def test_without_a_whole_reference_there_is_no_window() -> None:
    rows = [prediction(number) for number in range(3)]
    assert split_windows(rows, 4, 1) == (rows, [])


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="n_window=0, expected at least 1 each"):
        split_windows([], 4, 0)
