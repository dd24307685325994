from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.prediction_log import MAX_CHARACTERS, PredictionLogger, is_sampled, redacted, to_table
from bentos.source import ROOT
from bentos.users import hashed_user
from checks.window import read_log
from lake.bucket import Bucket, BucketAddress
from lake.errors import StorageError
from lake.records import PredictionLog

AT = datetime(2026, 3, 14, 15, 9, 26, 535897, tzinfo=UTC)
SOON_S = 20.0


class Store:
    """Stands before the bucket and can be away: `put_table` then fails as the bucket does."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket, self.away = bucket, False
        self.tried: list[str] = []
        self.failure: Exception = StorageError("s3://x", expected="an answer", got="none", remedy="start it")
        self.attempted = threading.Event()

    def put_table(self, key: str, table: pa.Table) -> None:
        self.tried.append(key)
        self.attempted.set()
        if self.away:
            raise self.failure
        self.bucket.put_table(key, table)


@pytest.fixture
def store(bucket: Bucket) -> Store:
    return Store(bucket)


@pytest.fixture
def make(store: Store) -> Iterator[Callable[..., PredictionLogger]]:
    made: list[PredictionLogger] = []

    def _make(**more: Any) -> PredictionLogger:
        more.setdefault("share", 1.0)
        more.setdefault("flush_interval_s", 3600.0)
        made.append(PredictionLogger(lambda: store, model="m", version="v1", **more))  # type: ignore[arg-type, return-value]
        return made[-1]

    yield _make
    for logger in made:
        logger.close(0.1)


def row(number: int, **changes: Any) -> PredictionLog:
    told: dict[str, Any] = {
        "request_id": f"request-{number}",
        "model": "m",
        "version": "v1",
        "at": AT + timedelta(seconds=number),
        "prompt": f"question {number}",
        "response": f"answer {number}",
        "n_prompt_tokens": 7,
        "n_response_tokens": 9,
        "latency_ms": 12.5,
        "status": 200,
        "shadow": False,
    }
    return PredictionLog(**{**told, **changes})


def logged(bucket: Bucket) -> list[dict[str, Any]]:
    keys = sorted(ref.key for ref in bucket.list("logs/m/"))
    return [found for key in keys for found in bucket.get_table(key).to_pylist()]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_rows_are_read_back_by_drift_detection_as_they_were(
    make: Callable[..., PredictionLogger], bucket: Bucket
) -> None:
    rows = [row(1), row(2, prompt="Grüße 🙂", response=""), row(3, latency_ms=0.125)]
    logger = make()
    for one in rows:
        logger.record(one)

    logger.close(SOON_S)

    assert read_log(bucket.address, "m", since=None) == rows


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=("Cs",))), st.booleans(), st.floats(0, 1e9)), max_size=20
    )
)
@settings(max_examples=50, deadline=None)
def test_a_table_holds_what_the_rows_do(told: list[tuple[str, bool, float]]) -> None:
    rows = [row(n, prompt=text, shadow=shadow, latency_ms=ms) for n, (text, shadow, ms) in enumerate(told)]

    table = to_table(rows)

    table.validate(full=True)
    assert [PredictionLog(**found) for found in table.to_pylist()] == rows
    assert table.column_names == list(PredictionLog.model_fields)


def test_writing_a_log_does_not_import_pandas() -> None:
    """It is no part of a bento, and here it would be a sixth of a replica's memory."""
    told = (
        "import sys, io, pyarrow.parquet as pq; from datetime import datetime, UTC;"
        "from bentos.prediction_log import to_table; from lake.records import PredictionLog;"
        "row = PredictionLog(request_id='1', model='m', version='v', at=datetime.now(UTC), prompt='', response='',"
        " n_prompt_tokens=1, n_response_tokens=1, latency_ms=1.0, status=200, shadow=False);"
        "pq.write_table(to_table([row]), io.BytesIO(), compression='zstd'); sys.exit('pandas' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", told], cwd=ROOT, check=False).returncode == 0


def test_keys_carry_day_time_and_writer(make: Callable[..., PredictionLogger], bucket: Bucket) -> None:
    writers = [make(), make()]
    for logger in writers:
        logger.record(row(1))
        logger.close(SOON_S)

    keys = [ref.key for ref in bucket.list("logs/m/")]
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert len(set(keys)) == 2  # two replicas of one version never write the same key
    assert all(key.startswith(f"logs/m/dt={today}/") and "-v1-" in key for key in keys)


def test_what_is_private_is_replaced(make: Callable[..., PredictionLogger], bucket: Bucket) -> None:
    logger = make()
    logger.record(row(1, prompt="I am joe@example.com", response="Call +1 202 555 0147"))
    logger.close(SOON_S)

    assert (logged(bucket)[0]["prompt"], logged(bucket)[0]["response"]) == ("I am <EMAIL>", "Call <PHONE>")


def test_users_are_told_apart_and_not_named(make: Callable[..., PredictionLogger], bucket: Bucket) -> None:
    logger = make(user_key=b"key")
    for number, user in enumerate(("joe@example.com", "ann", "joe@example.com", "")):
        logger.record(row(number, user=user))
    logger.close(SOON_S)

    joe, ann, again, nobody = (found["user"] for found in logged(bucket))
    assert joe == again == hashed_user(b"key", "joe@example.com")
    assert joe != ann and nobody == ""
    assert not {"joe", "ann"} & {joe, ann} and len(joe) == len(ann) == 32


def test_without_a_key_no_two_loggers_hash_a_user_alike(make: Callable[..., PredictionLogger], bucket: Bucket) -> None:
    for logger in (make(), make()):
        logger.record(row(1, user="ann"))
        logger.close(SOON_S)

    assert len({found["user"] for found in logged(bucket)}) == 2


def test_long_and_broken_texts_are_made_storable() -> None:
    kept = redacted(row(1, prompt="x" * 3 * MAX_CHARACTERS, response="half a pair: \ud83d"), b"key")

    assert len(kept.prompt) == MAX_CHARACTERS
    assert kept.response == "half a pair: ?"


def test_the_log_is_written_from_time_to_time(make: Callable[..., PredictionLogger], bucket: Bucket) -> None:
    written: list[int] = []
    logger = make(flush_interval_s=0.05, on_written=written.append)

    logger.record(row(1))

    eventually(lambda: sum(written) == 1)
    assert len(logged(bucket)) == 1


def test_many_rows_are_written_before_their_time(make: Callable[..., PredictionLogger], bucket: Bucket) -> None:
    written: list[int] = []
    logger = make(flush_rows=10, on_written=written.append)

    for number in range(25):
        logger.record(row(number))

    eventually(lambda: sum(written) == 20)
    logger.close(SOON_S)
    assert written == [10, 10, 5]
    assert [found["request_id"] for found in logged(bucket)] == [f"request-{number}" for number in range(25)]


def test_the_sampled_share_is_the_same_everywhere(make: Callable[..., PredictionLogger], bucket: Bucket) -> None:
    logger = make(share=0.25)
    for number in range(400):
        logger.record(row(number))
    logger.close(SOON_S)

    expected = [f"request-{number}" for number in range(400) if is_sampled(f"request-{number}", 0.25)]
    assert [found["request_id"] for found in logged(bucket)] == expected
    assert 60 < len(expected) < 140  # 100 ± 4.6 standard deviations


@pytest.mark.parametrize(("share", "sampled"), [(0.0, False), (1.0, True)])
def test_nothing_and_everything_are_shares(share: float, sampled: bool) -> None:
    assert {is_sampled(str(number), share) for number in range(1_000)} == {sampled}


def test_rows_wait_for_a_store_that_is_away_and_keep_their_key(
    make: Callable[..., PredictionLogger], store: Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bentos.prediction_log._FIRST_RETRY_S", 0.01)
    store.away = True
    logger = make(flush_interval_s=0.01)
    logger.record(row(1))
    eventually(lambda: len(store.tried) >= 3)

    logger.record(row(2))
    store.away = False
    logger.close(SOON_S)

    assert [found["request_id"] for found in logged(bucket)] == ["request-1", "request-2"]
    # The first object came under the key of its first attempt.
    assert len(set(store.tried)) == 2


def test_no_more_rows_are_kept_than_there_is_room_for(
    make: Callable[..., PredictionLogger], store: Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bentos.prediction_log._FIRST_RETRY_S", 0.01)
    store.away = True
    dropped: list[int] = []
    logger = make(flush_interval_s=0.01, max_rows=5, on_dropped=dropped.append)

    for number in range(8):
        logger.record(row(number))

    assert sum(dropped) == 3
    store.away = False
    logger.close(SOON_S)
    assert [found["request_id"] for found in logged(bucket)] == [f"request-{number}" for number in range(5)]


def test_closing_does_not_wait_for_a_store_that_stays_away(make: Callable[..., PredictionLogger], store: Store) -> None:
    store.away = True
    dropped: list[int] = []
    logger = make(on_dropped=dropped.append)
    logger.record(row(1))
    logger.record(row(2))

    logger.close(0.2)
    logger.record(row(3))

    assert sum(dropped) == 3
    assert store.attempted.is_set()


def test_rows_that_can_never_be_written_do_not_hold_up_the_next(
    make: Callable[..., PredictionLogger], store: Store, bucket: Bucket
) -> None:
    store.away, store.failure = True, ValueError("no such column")
    dropped: list[int] = []
    logger = make(flush_interval_s=0.01, on_dropped=dropped.append)
    logger.record(row(1))
    eventually(lambda: sum(dropped) == 1)

    store.away = False
    logger.record(row(2))
    logger.close(SOON_S)

    assert [found["request_id"] for found in logged(bucket)] == ["request-2"]


def test_recording_never_waits_for_the_store(make: Callable[..., PredictionLogger], store: Store) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hang(_: str, __: pa.Table) -> None:
        entered.set()
        leave.wait(SOON_S)

    store.put_table = hang  # type: ignore[method-assign]
    logger = make(flush_interval_s=0.01)
    logger.record(row(1))
    assert entered.wait(SOON_S)

    for number in range(100):  # the writer hangs in the store meanwhile: this would not end
        logger.record(row(number))

    assert not leave.is_set()
    leave.set()


def test_a_store_that_cannot_be_opened_is_opened_later(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentos.prediction_log._FIRST_RETRY_S", 0.01)
    attempts: list[BucketAddress] = []

    def opened() -> Bucket:
        attempts.append(bucket.address)
        if len(attempts) < 3:
            raise StorageError("s3://x", expected="an answer", got="none", remedy="start it")
        return bucket

    logger = PredictionLogger(opened, model="m", version="v1", share=1.0, flush_interval_s=0.01)
    logger.record(row(1))
    logger.close(SOON_S)

    assert len(logged(bucket)) == 1
