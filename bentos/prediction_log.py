"""Log answered requests to Parquet objects in the bucket, from a thread of its own: serving never waits for it.

Rows are sampled when they are taken, redacted and written every few seconds, and kept while the store is down, as many
as there is room for. What had to be dropped is counted. An object keeps its key through all attempts to write it, so
that a write which was answered with an error but took place is not there twice.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from bentos.users import hashed_user
from lake.bucket import Bucket
from lake.errors import StorageError
from lake.layout import log_key
from lake.records import PredictionLog
from lake.redact import KINDS, redact

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 5.0
FLUSH_ROWS = 500
# About 2 kB a row: 20 MB, or a quarter of an hour of 10 requests a second without a store.
MAX_ROWS = 10_000
MAX_CHARACTERS = 20_000
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 30.0
_REDACTED = KINDS
_COLUMNS: dict[str, pa.DataType] = {
    "request_id": pa.string(),
    "model": pa.string(),
    "version": pa.string(),
    "at": pa.timestamp("us", tz="UTC"),
    "prompt": pa.string(),
    "response": pa.string(),
    "n_prompt_tokens": pa.int64(),
    "n_response_tokens": pa.int64(),
    "latency_ms": pa.float64(),
    "status": pa.int64(),
    "shadow": pa.bool_(),
    "user": pa.string(),
    "pinned": pa.bool_(),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _ignore(_: int) -> None:
    """Nobody counts."""


class PredictionLogger:
    """One replica's log. `record` may be called from any thread and returns at once.

    Users are hashed with `user_key`; without one, a user is another in each process.
    """

    def __init__(
        self,
        open_bucket: Callable[[], Bucket],
        *,
        model: str,
        version: str,
        share: float,
        user_key: bytes | None = None,
        flush_interval_s: float = FLUSH_INTERVAL_S,
        flush_rows: int = FLUSH_ROWS,
        max_rows: int = MAX_ROWS,
        on_written: Callable[[int], None] = _ignore,
        on_dropped: Callable[[int], None] = _ignore,
    ) -> None:
        self._open_bucket = open_bucket
        self._bucket: Bucket | None = None
        self._model, self._share = model, share
        self._user_key = user_key or secrets.token_bytes(32)
        self._writer = f"{version}-{uuid.uuid4().hex[:8]}"
        self._flush_interval_s, self._flush_rows, self._max_rows = flush_interval_s, flush_rows, max_rows
        self._on_written, self._on_dropped = on_written, on_dropped
        self._rows: deque[PredictionLog] = deque()
        self._sequence = 0
        self._wake = threading.Condition()
        self._give_up_at: float | None = None  # set once closing
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def record(self, row: PredictionLog) -> None:
        """Take a row, unless its request is not among the sampled share or there is no room for it."""
        if not is_sampled(row.request_id, self._share):
            return
        with self._wake:
            if self._give_up_at is None and len(self._rows) < self._max_rows:
                self._rows.append(row)
                if len(self._rows) >= self._flush_rows:
                    self._wake.notify()
                return
        self._on_dropped(1)

    def close(self, timeout_s: float) -> None:
        """Write what is there; what the store has not taken within `timeout_s` is dropped."""
        with self._wake:
            if self._give_up_at is not None:
                return
            self._give_up_at = time.monotonic() + timeout_s
            self._wake.notify()
        self._thread.join(timeout_s)
        with self._wake:
            n_left = len(self._rows)
            self._rows.clear()
        if n_left:
            log.error("prediction log: %d rows dropped at shutdown: the store did not take them", n_left)
            self._on_dropped(n_left)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(
                    lambda: self._give_up_at is not None or len(self._rows) >= self._flush_rows,
                    timeout=self._flush_interval_s,
                )
                closing = self._give_up_at is not None
                batch = [self._rows[index] for index in range(min(self._flush_rows, len(self._rows)))]
            if batch and self._write(batch):
                with self._wake:
                    for _ in range(min(len(batch), len(self._rows))):
                        self._rows.popleft()
            elif closing:
                return

    def _write(self, batch: Sequence[PredictionLog]) -> bool:
        """Write one object, however long the store is away; False only when closing and out of time."""
        key = log_key(self._model, datetime.now(UTC), self._writer, self._sequence)
        self._sequence += 1
        pause_s = _FIRST_RETRY_S
        while True:
            try:
                if self._bucket is None:
                    self._bucket = self._open_bucket()
                self._bucket.put_table(key, to_table([redacted(row, self._user_key) for row in batch]))
            except StorageError as error:
                log.warning("prediction log: %s; trying again in %.0f s", error, pause_s)
            except Exception:
                # Whatever it is, it would be so again: these rows go, the next ones get their chance.
                log.exception("prediction log: %d rows dropped", len(batch))
                self._on_dropped(len(batch))
                return True
            else:
                self._on_written(len(batch))
                return True
            with self._wake:
                if self._give_up_at is None:
                    self._wake.wait_for(lambda: self._give_up_at is not None, timeout=pause_s)
                elif time.monotonic() + pause_s < self._give_up_at:
                    self._wake.wait(pause_s)
                else:
                    return False
            pause_s = min(2 * pause_s, _LAST_RETRY_S)


def is_sampled(request_id: str, share: float) -> bool:
    """Whether a request is in the sampled share: the same answer in every replica, and for a retry of the request."""
    number = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big")
    return number < share * 2**64


def redacted(row: PredictionLog, user_key: bytes) -> PredictionLog:
    """Personal data and secrets replaced, also where a recipe keeps them in training data: nobody agreed to this copy."""
    prompt, _ = redact(row.prompt, _REDACTED)
    response, _ = redact(row.response, _REDACTED)
    return row.model_copy(
        update={
            "prompt": _storable(prompt),
            "response": _storable(response),
            "user": hashed_user(user_key, row.user),
        }
    )


def to_table(rows: Sequence[PredictionLog]) -> pa.Table:
    """One column for each field of PredictionLog.

    From buffers: `pa.array` and all that builds on it import pandas where it is installed, and with it half a second
    and 55 MB of every replica.
    """
    columns = {name: _column([getattr(row, name) for row in rows], kind) for name, kind in _COLUMNS.items()}
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(list(_COLUMNS.items())))


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """An Arrow array without nulls, laid out as the columnar format has it."""
    if pa.types.is_string(kind):
        texts = [value.encode() for value in values]
        offsets = np.cumsum([0, *map(len, texts)], dtype=np.int32)
        return pa.Array.from_buffers(kind, len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))])
    if pa.types.is_boolean(kind):
        data = np.packbits(np.array(values, dtype=bool), bitorder="little")
    elif pa.types.is_timestamp(kind):
        data = np.array([(value - _EPOCH) // timedelta(microseconds=1) for value in values], dtype=np.int64)
    else:
        data = np.array(values, dtype=np.float64 if pa.types.is_floating(kind) else np.int64)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(data)])


def _storable(text: str) -> str:
    """At most MAX_CHARACTERS; half a surrogate pair, which JSON allows and UTF-8 does not, becomes a question mark."""
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
