"""Windows of live traffic: read the prediction log, and cut it into one reference and successive current windows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from checks.log_rows import rows_of
from lake.bucket import Bucket, BucketAddress
from lake.layout import log_prefix
from lake.records import PredictionLog

log = logging.getLogger(__name__)

# A log object is named by the time of its writing, its rows by the time of their request: a row may be older than
# its object, never newer, and a replica that drains may hold rows back for a while.
_WRITE_DELAY = timedelta(hours=1)


def read_log(address: BucketAddress, model: str, since: datetime | None) -> list[PredictionLog]:
    """Requests that the live model answered since `since` (all when None), oldest first.

    Shadow traffic and failed requests (status other than 200) are left out. A retry at the gateway runs a request
    again under the same id: the first answer counts. A damaged log object is skipped with a warning.
    Raises StorageError when the bucket does not answer.
    """
    bucket = _bucket(address)
    first_day = f"{log_prefix(model)}dt={since - _WRITE_DELAY:%Y-%m-%d}" if since else ""
    rows = (
        row
        for ref in bucket.list(log_prefix(model))
        if ref.key.endswith(".parquet") and ref.key >= first_day
        for row in _rows(address, ref.key, ref.etag)
        if not row.shadow and row.status == 200 and (since is None or row.at >= since)
    )
    first_answers: dict[str, PredictionLog] = {}
    for row in sorted(rows, key=lambda row: (row.at, row.request_id)):
        first_answers.setdefault(row.request_id, row)
    return list(first_answers.values())


def split_windows(
    rows: Sequence[PredictionLog], n_reference: int, n_window: int
) -> tuple[list[PredictionLog], list[list[PredictionLog]]]:
    """The first `n_reference` rows, and after them every complete window of `n_window` rows; none overlap.

    As long as the reference is incomplete there is no window.
    """
    if n_reference < 1 or n_window < 1:
        raise ValueError(f"n_reference={n_reference}, n_window={n_window}, expected at least 1 each")
    reference, rest = list(rows[:n_reference]), rows[n_reference:]
    starts = range(0, len(rest) - n_window + 1, n_window)
    return reference, [list(rest[start : start + n_window]) for start in starts]


@lru_cache(maxsize=8)
def _bucket(address: BucketAddress) -> Bucket:
    return Bucket(address)


@lru_cache(maxsize=2048)
def _rows(address: BucketAddress, key: str, etag: str) -> tuple[PredictionLog, ...]:
    """Rows of one log object. Log objects never change, so each is fetched once a process."""
    try:
        return rows_of(_bucket(address).get(key))
    except ValueError as error:
        log.warning("%s (etag %s) left out of drift detection: %s", key, etag, error)
        return ()
