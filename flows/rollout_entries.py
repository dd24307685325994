"""What is entered of a rollout for its controller: every value once, whoever dies between seeing and entering it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from lake.ledger.observations import RolloutObservations
from lake.ledger.rollout_state import Observations

_ID_BYTES = 9  # of a million ids, two are the same in one of 10^10 rollouts


class Value(NamedTuple):
    """One value, by what it was seen on: a request, a user, a window of time."""

    id: str
    value: float


def hashed(identity: str) -> str:
    """A short id that names nobody: 12 characters of base64."""
    return base64.urlsafe_b64encode(hashlib.sha256(identity.encode("utf-8", "replace")).digest()[:_ID_BYTES]).decode()


class Entries:
    """The entries of one rollout. The ledger is the memory: ids are entered with their values, in one transaction."""

    def __init__(self, observations: RolloutObservations, rollout_id: str) -> None:
        self._observations, self._rollout_id = observations, rollout_id
        self._number = 0
        self._ids: dict[tuple[str, int | None], dict[str, None]] = {}

    def ids(self, metric: str, step_index: int | None = None) -> Iterable[str]:
        """What has been entered of a metric, in this order; of one step or of all."""
        return self._ids.get((metric, step_index), {})

    def refresh(self) -> None:
        """Learn what this or another process has entered meanwhile."""
        while entries := self._observations.after(self._rollout_id, self._number):
            for number, seen in entries:
                self._number = number
                for place in ((seen.metric, None), (seen.metric, seen.step_index)):
                    self._ids.setdefault(place, {}).update(dict.fromkeys(seen.ids))

    def add(
        self,
        metric: str,
        step_index: int,
        *,
        paired: Iterable[Value] = (),
        champion: Iterable[Value] = (),
        challenger: Iterable[Value] = (),
        once_a_step: bool = False,
    ) -> int:
        """Enter those values that have not been: of the rollout, or of the step. Returns how many."""
        self.refresh()
        known = set(self.ids(metric, step_index if once_a_step else None))
        ours, theirs, both = (_new(values, known) for values in (champion, challenger, paired))
        entered = (*ours, *theirs, *both)
        if entered:
            self._observations.add(
                self._rollout_id,
                Observations(
                    metric=metric,
                    step_index=step_index,
                    paired=tuple(value.value for value in both),
                    champion=tuple(value.value for value in ours),
                    challenger=tuple(value.value for value in theirs),
                    ids=tuple(value.id for value in entered),
                ),
            )
            self.refresh()
        return len(entered)


def _new(values: Iterable[Value], known: set[str]) -> list[Value]:
    """Those with an id that is not known yet; it is then."""
    found = []
    for value in values:
        if value.id not in known:
            known.add(value.id)
            found.append(value)
    return found
