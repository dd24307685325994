"""Join what champion and challenger have answered to the same request, as both come out of the log."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from checks.answers import Pair
from lake.records import PredictionLog

# Of answers that wait for the other version's: those of a mirrored share of 10% wait in vain, nine of ten.
MAX_WAITING_CHARACTERS = 40_000_000


class Pairs:
    """Rows go in, pairs come out. One half may come at any time after the other; the longest waiting is given up."""

    def __init__(self, champion: str, challenger: str, max_waiting_characters: int = MAX_WAITING_CHARACTERS) -> None:
        self._champion, self._challenger = champion, challenger
        self._max_characters = max_waiting_characters
        self._waiting: OrderedDict[str, PredictionLog] = OrderedDict()
        self._n_characters = 0

    def join(self, rows: Iterable[PredictionLog]) -> list[Pair]:
        """Pairs that these rows complete, in the order of their requests.

        Only answers with status 200 pair: the champion's to a client, the challenger's to a copy. Of a request that was
        answered twice by a version before it paired, the first counts; afterwards it may pair again, under the same id.
        """
        found: list[tuple[PredictionLog, PredictionLog]] = []
        for row in rows:
            if row.status != 200 or row.version != (self._challenger if row.shadow else self._champion):
                continue
            other = self._waiting.get(row.request_id)
            if other is None:
                self._wait(row)
            elif other.shadow != row.shadow:
                self._forget(row.request_id)
                found.append((other, row) if row.shadow else (row, other))
        found.sort(key=lambda both: (both[0].at, both[0].request_id))
        return [Pair(ours.request_id, ours.prompt, ours.response, theirs.response) for ours, theirs in found]

    def _wait(self, row: PredictionLog) -> None:
        self._waiting[row.request_id] = row
        self._n_characters += _size(row)
        while self._n_characters > self._max_characters:
            self._forget(next(iter(self._waiting)))

    def _forget(self, request_id: str) -> None:
        self._n_characters -= _size(self._waiting.pop(request_id))


def _size(row: PredictionLog) -> int:
    return len(row.prompt) + len(row.response) + 500  # and what a row takes beside its texts
