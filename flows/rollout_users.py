"""Count how a sticky step has split its traffic: in users, as it is users whom it splits."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from bentos.evidence import SPLIT
from flows.rollout_entries import Entries, Value, hashed
from lake.records import PredictionLog

# A request is in the log once its answer is complete and its replica has written: 5 s later, and some more.
SETTLE = timedelta(seconds=20)
# Until then the gateway may still have the routes of the step before.
GRACE = timedelta(seconds=10)
# A planted 48/52 is found by 20,000; more than this would tell nothing new, and fill the ledger.
MAX_UNITS = 50_000


class SplitUsers:
    """Users, and requests that name none, seen for the first time in one step. Each counts where its first request went.

    The first request to the challenger begins the count: before it the split was not in force, and what comes after it
    falls to either side by the split alone. Rows are counted when every earlier one must have come, the slowest answer
    so far considered: what a version has not answered yet would be missing on its side alone.
    """

    def __init__(self, champion: str, challenger: str, step_index: int, began: datetime, entries: Entries) -> None:
        self._champion, self._challenger = champion, challenger
        self._step_index, self._entries = step_index, entries
        self._began = began + GRACE
        self._waiting: list[PredictionLog] = []
        self._seen: set[str] = set()
        self._begun = False
        self._slowest = timedelta()

    def take(self, rows: Iterable[PredictionLog], is_all: bool, now: datetime) -> int:
        """Enter the new users of rows that have settled; returns how many. `is_all`: the log has no more rows by now."""
        for row in rows:
            if row.shadow or row.pinned or row.version not in (self._champion, self._challenger):
                continue
            if row.at >= self._began:
                self._slowest = max(self._slowest, timedelta(milliseconds=row.latency_ms))
                self._waiting.append(row)
        if not is_all:
            return 0
        settled = now - SETTLE - self._slowest
        ready = sorted((row for row in self._waiting if row.at <= settled), key=lambda row: (row.at, row.request_id))
        self._waiting = [row for row in self._waiting if row.at > settled]
        return self._enter(ready)

    def _enter(self, rows: list[PredictionLog]) -> int:
        sides: dict[str, list[Value]] = {self._champion: [], self._challenger: []}
        for row in rows:
            unit = row.user or hashed(row.request_id)
            if not self._begun:
                self._begun = row.version == self._challenger
            elif unit not in self._seen and len(self._seen) < MAX_UNITS:
                sides[row.version].append(Value(unit, 1.0))
            else:
                continue
            if self._begun:
                self._seen.add(unit)
        return self._entries.add(
            SPLIT,
            self._step_index,
            champion=sides[self._champion],
            challenger=sides[self._challenger],
            once_a_step=True,
        )
