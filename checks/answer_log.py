"""Follow a model's prediction log: every object once, as it comes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from checks.log_rows import rows_of
from lake.bucket import Bucket
from lake.layout import log_prefix
from lake.records import ObjectRef, PredictionLog

log = logging.getLogger(__name__)

# A replica names an object when it first tries to write it, and goes on trying while the store is away.
LATEST = timedelta(hours=1)
# Another machine's clock.
_CLOCK_SLACK = timedelta(minutes=1)


class LogReader:
    """`since`: no row of an earlier request is wanted. Starts anew with the process."""

    def __init__(self, bucket: Bucket, model: str, since: datetime) -> None:
        self._bucket, self._model, self._since = bucket, model, since
        self._read: set[str] = set()
        self._from = since - _CLOCK_SLACK

    def read(self, max_objects: int) -> tuple[list[PredictionLog], bool]:
        """Rows of at most so many objects, the oldest first, and whether that was all there is by now.

        A damaged object is left out with a warning. Raises StorageError when the bucket does not answer: nothing counts
        as read then.
        """
        prefix = log_prefix(self._model)
        first = f"{prefix}dt={self._from:%Y-%m-%d}/{self._from:%H%M%S}"
        listed = [ref for page in self._bucket.pages(prefix, first) for ref in page if ref.key.endswith(".parquet")]
        new = sorted((ref for ref in listed if ref.key not in self._read), key=lambda ref: ref.key)
        chosen = new[:max_objects]
        rows = [row for ref in chosen for row in self._rows(ref) if row.at >= self._since]
        self._read = {ref.key for ref in listed}.intersection(self._read).union(ref.key for ref in chosen)
        is_all = len(chosen) == len(new)
        if is_all and listed:  # what comes later than that is not looked for
            self._from = max(self._from, max(map(_written_at, listed)) - LATEST)
        return rows, is_all

    def _rows(self, ref: ObjectRef) -> Iterator[PredictionLog]:
        try:
            yield from rows_of(self._bucket.get(ref.key))
        except ValueError as error:
            log.warning("%s left out of the rollout's evidence: %s", ref.key, error)


def _written_at(ref: ObjectRef) -> datetime:
    """By its name, or by the store if that is earlier: a name may tell anything."""
    try:
        named = datetime.strptime("/".join(ref.key.split("/")[-2:])[:20], "dt=%Y-%m-%d/%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC) + LATEST
    return min(named, ref.last_modified)
