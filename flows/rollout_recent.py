"""How many requests a model has had lately, told by its prediction log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from lake.bucket import BucketAddress

WINDOW = timedelta(hours=1)
MIN_REQUESTS = 10


def recent_requests_per_s(address: BucketAddress, model: str, log_share: float) -> float | None:
    """Requests per second of the last hour, or since the first one within it. None when there were hardly any.

    `log_share` of them are logged. Raises StorageError when the bucket does not answer.
    """
    from checks.window import read_log

    now = datetime.now(UTC)
    rows = read_log(address, model, now - WINDOW)
    if len(rows) < MIN_REQUESTS or log_share <= 0:
        return None
    span_s = max(1.0, (now - rows[0].at).total_seconds())
    return len(rows) / span_s / log_share
