"""Compare what a challenger answers in the shadow with what the champion has answered to the same requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from checks.answer_pairs import Pairs
from checks.answers import Measure, Pair, Values, worse_by
from flows.rollout_entries import Entries, Value, hashed
from flows.rollout_scorers import few
from lake.recipe import RolloutCheck
from lake.records import PredictionLog

# Of one round; a draw of what has come is as good as all of it.
MAX_PAIRS = 300

Attempt = Callable[[str, Callable[[], object]], None]


class ShadowAnswers:
    """Pairs of one rollout, scored and entered. `attempt` keeps one metric's trouble from the others."""

    def __init__(
        self, champion: str, challenger: str, measures: Mapping[str, Measure], entries: Entries, attempt: Attempt
    ) -> None:
        self._pairs = Pairs(champion, challenger)
        self._measures, self._entries, self._attempt = measures, entries, attempt

    def take(self, rows: Iterable[PredictionLog], step_index: int, checks: Sequence[RolloutCheck]) -> None:
        """Enter a difference for each new pair and each of the checks that compare answers."""
        pairs = self._pairs.join(rows)
        drawn = [pairs[place] for place in few(pairs, MAX_PAIRS)]
        for check in checks if drawn else ():
            if check.metric in self._measures:
                self._entries.add(check.metric, step_index, paired=self._worse(check, drawn))

    def _worse(self, check: RolloutCheck, pairs: Sequence[Pair]) -> list[Value]:
        """By how much each challenger is worse; of pairs that have been entered already, nothing is told."""
        known = set(self._entries.ids(check.metric))
        new = [(hashed(pair.request_id), pair) for pair in pairs]
        new = [(identity, pair) for identity, pair in new if identity not in known]
        values: Values = []
        measure = self._measures[check.metric]
        self._attempt(f"metric {check.metric}", lambda: values.extend(measure([pair for _, pair in new])))
        told = [
            (identity, worse_by(both, check.direction)) for (identity, _), both in zip(new, values, strict=bool(values))
        ]
        return [Value(identity, worse) for identity, worse in told if worse is not None]
