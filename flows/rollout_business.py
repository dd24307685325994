"""Business metrics: a check's own URL is asked, from time to time, what each version has brought since."""

from __future__ import annotations

import json
import math
import time
from datetime import datetime, timedelta
from typing import Any

import httpx

from flows.rollout_entries import Entries, Value
from lake.errors import TidemillError
from lake.ledger.rollout_state import RolloutState
from lake.recipe import RolloutCheck

TIMEOUT_S = 5.0
# That one question may cover.
MAX_INTERVALS = 6
MAX_VALUES = 1_000
MAX_ANSWER_BYTES = 1_000_000
# A bearer token, for a URL that wants one.
TOKEN_VARIABLE = "TIDEMILL_BUSINESS_TOKEN"  # noqa: S105  # its name

Answer = tuple[list[float], list[float]]


class BusinessMetrics:
    """The business checks of one rollout. An answer counts for the time that was asked for; without one, for longer."""

    def __init__(self, entries: Entries, token: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._entries, self._token, self._timeout_s = entries, token, timeout_s
        self._asked_at: dict[str, float] = {}

    def is_due(self, check: RolloutCheck) -> bool:
        """Whether it is time to ask; then it is not again for the check's `interval_s`."""
        last, now = self._asked_at.get(check.metric), time.monotonic()
        if check.url is None or (last is not None and now - last < check.interval_s):
            return False
        self._asked_at[check.metric] = now
        return True

    def look(self, state: RolloutState, check: RolloutCheck, now: datetime) -> int:
        """Ask, and enter what was told of the time since the last answer within the step; returns how many values.

        Raises TidemillError when there is no answer of the right shape: nothing is entered then.
        """
        since = self._told_until(state, check)
        if check.url is None or state.step is None or now <= since:
            return 0
        # After an outage, piece by piece: an answer is bounded.
        now = min(now, since + timedelta(seconds=MAX_INTERVALS * check.interval_s))
        asked = {
            "model": state.model,
            "rollout_id": state.rollout_id,
            "stage": state.step.stage,
            "champion": state.champion,
            "challenger": state.challenger,
            "since": since.isoformat(),
            "until": now.isoformat(),
        }
        body = post(check.url, asked, what=check.metric, token=self._token, timeout_s=self._timeout_s)
        champion, challenger = values_of(body, check.metric)
        self._entries.refresh()
        if self._told_until(state, check) != since:  # another process has asked meanwhile
            return 0
        told = [Value(f"{now.isoformat()}/{number}", value) for number, value in enumerate((*champion, *challenger))]
        n = len(champion)
        return self._entries.add(check.metric, state.step_index, champion=told[:n], challenger=told[n:])

    def _told_until(self, state: RolloutState, check: RolloutCheck) -> datetime:
        """The end of the time that has been told. What came before the step had another share of the traffic behind it."""
        told = list(self._entries.ids(check.metric, state.step_index))
        return datetime.fromisoformat(told[-1].split("/")[0]) if told else state.entered_at


def post(url: str, asked: dict[str, Any], *, what: str, token: str | None, timeout_s: float) -> bytes:
    """The body of the answer, at most MAX_ANSWER_BYTES, within `timeout_s` in all. Raises TidemillError.

    What is raised names no URL and no token: both may hold secrets, and it is logged.
    """
    headers = {"authorization": f"Bearer {token}"} if token else {}
    deadline, body = time.monotonic() + timeout_s, bytearray()
    try:
        with httpx.stream("POST", url, json=asked, headers=headers, timeout=timeout_s) as answer:
            if answer.status_code != 200:
                raise _no_data(what, f"status {answer.status_code}")
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise _no_data(what, f"more than {MAX_ANSWER_BYTES:,} bytes")
                if time.monotonic() > deadline:
                    raise _no_data(what, f"no end within {timeout_s:g} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _no_data(what, type(error).__name__) from None
    return bytes(body)


def values_of(body: bytes, what: str) -> Answer:
    """Both versions' values, finite ones. Raises TidemillError for any other answer."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise _no_data(what, "no JSON") from None
    if not isinstance(told, dict):
        raise _no_data(what, f"a JSON {type(told).__name__}")
    return _side(told, "champion", what), _side(told, "challenger", what)


def _side(told: dict[str, Any], name: str, what: str) -> list[float]:
    values = told.get(name)
    values = values if isinstance(values, list) else [values]
    if len(values) > MAX_VALUES:
        raise _no_data(what, f"{len(values)} values in {name}")
    if not all(_is_number(value) for value in values):
        raise _no_data(what, f"something else than finite numbers in {name}")
    return [float(value) for value in values]


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _no_data(what: str, got: str) -> TidemillError:
    return TidemillError(
        f"the url of {what}",
        expected='status 200 and {"champion": [numbers], "challenger": [numbers]}, or a number each',
        got=got,
        remedy="the check has no data meanwhile; see docs/rollout-metrics.md",
    )
