"""Tell the rollout controller what the gateway cannot count: answers' quality, feedback, business metrics, users.

Everything is read from the bucket and the ledger, and entered with what it was seen on: a process that is killed and
started again goes on without entering anything twice. It decides nothing: without it, checks have no data, and hold.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from checks.answer_log import LogReader
from checks.answers import Measure
from flows.complaints import Complaints
from flows.context import Context
from flows.rollout_answers import ShadowAnswers
from flows.rollout_business import TOKEN_VARIABLE, BusinessMetrics
from flows.rollout_entries import Entries
from flows.rollout_feedback import FEEDBACK, FeedbackReader, FeedbackScores
from flows.rollout_scorers import measures
from flows.rollout_users import SplitUsers
from lake.ledger.rollout_state import RolloutState
from lake.recipe import RolloutCheck
from lake.records import PredictionLog, RolloutDecision

log = logging.getLogger("tidemill.serve")
EVERY_S = 5.0
# Of one round, so that a rollout with a long log keeps no other waiting.
MAX_LOG_OBJECTS = 50


class RolloutQuality:
    """One `tick` after the other, in one thread. Rollouts are kept apart: the trouble of one stops no other."""

    def __init__(self, context: Context, complaints: Complaints, token: str | None = None) -> None:
        """`token` is sent with the questions of business metrics; unset, TIDEMILL_BUSINESS_TOKEN is, if there is one."""
        self._context, self._complaints = context, complaints
        self._token = token or os.environ.get(TOKEN_VARIABLE) or None
        self._followed: dict[str, _Followed] = {}

    def run(self, stopping: threading.Event, every_s: float = EVERY_S) -> None:
        """Tick until told to stop."""
        while not stopping.is_set():
            started = time.monotonic()
            self._complaints.attempt("evidence of rollouts", self.tick)
            stopping.wait(max(0.0, every_s - (time.monotonic() - started)))

    def tick(self) -> None:
        """One look at what has come for each running rollout. Raises TidemillError when the ledger does not answer."""
        running = {state.rollout_id: state for state in self._context.ledger.rollouts.running()}
        for ended in self._followed.keys() - running.keys():
            del self._followed[ended]
        for state in running.values():
            if state.step is not None and state.champion is not None:
                self._complaints.attempt(f"evidence of {state.rollout_id}", partial(self._look, state))

    def _look(self, state: RolloutState) -> None:
        followed = self._followed.pop(state.rollout_id, None)
        if followed is None or not followed.fits(state):
            followed = _Followed(self._context, state, self._attempt_of(state), self._token)
        followed.look(state, datetime.now(UTC))
        # Not reached after trouble: it may have left half of a round behind, and the next look starts from the ledger.
        self._followed[state.rollout_id] = followed

    def _attempt_of(self, state: RolloutState) -> Callable[[str, Callable[[], object]], None]:
        return lambda what, action: self._complaints.attempt(f"{state.rollout_id}, {what}", action)


class _Followed:
    """A rollout while it is in its shadow steps, or in its live ones."""

    def __init__(
        self,
        context: Context,
        state: RolloutState,
        attempt: Callable[[str, Callable[[], object]], None],
        token: str | None,
    ) -> None:
        self._context, self._attempt = context, attempt
        self._is_shadow = _is_shadow(state)
        self._times = step_times(state, context.ledger.rollouts.decisions(state.rollout_id))
        since = min(at for index, at in self._times.items() if _is_shadow(state, index) == self._is_shadow)
        champion, challenger = state.champion or "", state.challenger
        self._entries = Entries(context.ledger.rollout_observations, state.rollout_id)
        self._entries.refresh()
        self._log = LogReader(context.bucket, state.model, since)
        self._answers = ShadowAnswers(champion, challenger, self._measures(state), self._entries, attempt)
        self._feedback = FeedbackReader(context.bucket, state.model, since)
        self._scores = FeedbackScores(champion, challenger, self._entries)
        self._business = BusinessMetrics(self._entries, token)
        self._users: tuple[int, SplitUsers] | None = None

    def fits(self, state: RolloutState) -> bool:
        return self._is_shadow == _is_shadow(state)

    def look(self, state: RolloutState, now: datetime) -> None:
        step = state.step
        if step is None:
            return
        self._times[state.step_index] = state.entered_at
        checks = state.plan.checks_of(step.stage)
        self._ask(state, checks, now)
        wants_feedback = any(check.metric == FEEDBACK for check in checks)
        wants_users = not self._is_shadow and step.is_sticky
        if not (wants_feedback or wants_users or (self._is_shadow and any(check.of.needs_log for check in checks))):
            return
        rows, is_all = self._log.read(MAX_LOG_OBJECTS)
        if self._is_shadow:
            self._answers.take(rows, state.step_index, checks)
        if wants_users:
            self._split(state, rows, is_all, now)
        if wants_feedback:
            self._scores.take([(self._step_of(row), row) for row in rows], self._feedback.read())

    def _ask(self, state: RolloutState, checks: Sequence[RolloutCheck], now: datetime) -> None:
        for check in checks:
            if self._business.is_due(check):
                self._attempt(f"metric {check.metric}", partial(self._business.look, state, check, now))

    def _split(self, state: RolloutState, rows: Sequence[PredictionLog], is_all: bool, now: datetime) -> None:
        if self._users is None or self._users[0] != state.step_index:
            began = self._times[state.step_index]
            users = SplitUsers(state.champion or "", state.challenger, state.step_index, began, self._entries)
            self._users = (state.step_index, users)
        self._users[1].take(rows, is_all, now)

    def _step_of(self, row: PredictionLog) -> int:
        """The step that was going on when the request came."""
        begun = [index for index, at in self._times.items() if at <= row.at]
        return max(begun, default=min(self._times))

    def _measures(self, state: RolloutState) -> Mapping[str, Measure]:
        if not self._is_shadow:
            return {}
        return measures(self._context.recipe(state.model), self._context.model_cache)


def step_times(state: RolloutState, decisions: Sequence[RolloutDecision]) -> dict[int, datetime]:
    """When each step so far was begun, by its index; the present one alone where the decisions do not tell."""
    begun = [decision.decided_at for decision in decisions if decision.action in ("start", "promote")]
    times = dict(enumerate(begun)) if len(begun) == state.step_index + 1 else {}
    return {**times, state.step_index: state.entered_at}


def _is_shadow(state: RolloutState, step_index: int | None = None) -> bool:
    return state.plan.steps[state.step_index if step_index is None else step_index].stage == "shadow"
