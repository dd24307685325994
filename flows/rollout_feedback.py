"""Scores and labels that users give to answers: read from the bucket, joined with the log, entered for the rollout."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.rollout_entries import Entries, Value, hashed
from lake.bucket import Bucket
from lake.layout import feedback_prefix
from lake.records import PredictionLog
from lake.redact import KINDS, redact

log = logging.getLogger("tidemill.serve")
FEEDBACK = "feedback"
MAX_OBJECT_BYTES = 16_000_000
MAX_OBJECTS = 50  # of one round
# Answers that may still get a score, and scores whose answer is not in the log yet: 200 bytes each.
MAX_ANSWERS = 200_000
MAX_UNANSWERED = 50_000
_CLOCK_SLACK = timedelta(hours=1)
_NO_LETTER = re.compile(r"[\W_]+")


class Feedback(BaseModel):
    """One line: of which request, and a score in [0, 1], or the right answer, which gives 1 to an answer that is it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    request_id: Annotated[str, Field(min_length=1, max_length=128)]
    score: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] | None = None
    label: Annotated[str, Field(max_length=20_000)] | None = None
    expected: Annotated[str, Field(max_length=20_000)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.score is None and self.right_answer is None:
            raise ValueError("a score, a label or what was expected")
        return self

    @property
    def right_answer(self) -> str | None:
        return self.expected if self.expected is not None else self.label


class Malformed(NamedTuple):
    """Lines that were left out: how many, and what is wrong with the first."""

    n_lines: int
    first: str


def parse(body: bytes) -> tuple[list[Feedback], Malformed | None]:
    """The lines of a JSON lines object that are feedback; blank ones are none. What is wrong never quotes a line."""
    found, n_malformed, first = [], 0, ""
    for number, line in enumerate(body.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(Feedback.model_validate(json.loads(line)))
        except ValidationError as error:
            problem = error.errors(include_input=False, include_context=False, include_url=False)[0]
            where = ".".join(map(str, problem["loc"]))
            reason = f"{where}: {problem['msg']}" if where else problem["msg"]
        except (ValueError, RecursionError):  # of JSON, or of UTF-8
            reason = "no JSON"
        else:
            continue
        n_malformed += 1
        first = first or f"line {number}: {reason}"
    return found, Malformed(n_malformed, first) if n_malformed else None


class FeedbackReader:
    """Feedback of one model that was put since a time: every object once, and once more when it was overwritten."""

    def __init__(self, bucket: Bucket, model: str, since: datetime) -> None:
        self._bucket, self._model, self._since = bucket, model, since - _CLOCK_SLACK
        self._read: set[tuple[str, str]] = set()

    def read(self) -> list[Feedback]:
        """What has come. Raises StorageError when the bucket does not answer: nothing counts as read then."""
        listed = {
            (ref.key, ref.etag): ref
            for ref in self._bucket.list(feedback_prefix(self._model))
            if ref.last_modified >= self._since
        }
        new = sorted(set(listed) - self._read)[:MAX_OBJECTS]
        found: list[Feedback] = []
        for key, etag in new:
            size_bytes = listed[key, etag].size_bytes
            if not key.endswith(".jsonl") or size_bytes > MAX_OBJECT_BYTES:
                told = f"{size_bytes:,} bytes, expected JSON lines (.jsonl) of at most {MAX_OBJECT_BYTES:,}"
                log.warning("%s is left out: %s", key, told)
                continue
            lines, malformed = parse(self._bucket.get(key))
            found += lines
            if malformed:
                log.warning("%s: %d lines are left out; %s", key, malformed.n_lines, malformed.first)
        self._read = self._read.intersection(listed).union(new)
        return found


class Answer(NamedTuple):
    """What is kept of a logged answer until somebody scores it."""

    is_challenger: bool
    at: datetime
    step_index: int
    digest: bytes


class FeedbackScores:
    """Join feedback and answers of one rollout's live steps; either may come first. One score a request: the first."""

    def __init__(self, champion: str, challenger: str, entries: Entries) -> None:
        self._versions = (champion, challenger)
        self._entries = entries
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._unanswered: OrderedDict[str, Feedback] = OrderedDict()
        self._first: datetime | None = None

    def take(self, rows: Iterable[tuple[int, PredictionLog]], given: Sequence[Feedback]) -> int:
        """Enter the scores of answers, with the step of each; returns how many.

        Answers from before the challenger's first one do not count: there was nothing to compare them with.
        """
        for step_index, row in rows:
            if row.status == 200 and not (row.shadow or row.pinned) and row.version in self._versions:
                is_challenger = row.version == self._versions[1]
                self._answers.setdefault(
                    row.request_id, Answer(is_challenger, row.at, step_index, digest(row.response))
                )
                if is_challenger and (self._first is None or row.at < self._first):
                    self._first = row.at
        for one in given:
            self._unanswered.setdefault(one.request_id, one)
        n_entered = self._enter()
        for kept, most in ((self._answers, MAX_ANSWERS), (self._unanswered, MAX_UNANSWERED)):
            while len(kept) > most:
                kept.popitem(last=False)
        return n_entered

    def _enter(self) -> int:
        if self._first is None:
            return 0
        sides: dict[tuple[int, bool], list[Value]] = {}
        for request_id in [request_id for request_id in self._unanswered if request_id in self._answers]:
            one, answer = self._unanswered.pop(request_id), self._answers[request_id]
            if answer.at >= self._first:
                value = Value(hashed(request_id), score(one, answer))
                sides.setdefault((answer.step_index, answer.is_challenger), []).append(value)
        return sum(
            self._entries.add(
                FEEDBACK,
                step_index,
                champion=sides.get((step_index, False), ()),
                challenger=sides.get((step_index, True), ()),
            )
            for step_index in sorted({step_index for step_index, _ in sides})
        )


def score(given: Feedback, answer: Answer) -> float:
    """The score that was given; else 1 if the answer is the right one, 0 if not."""
    if given.score is not None:
        return given.score
    right, _ = redact(given.right_answer or "", KINDS)  # as the log has it
    return float(digest(right) == answer.digest)


def digest(answer: str) -> bytes:
    """The same for answers that differ in case, punctuation and space alone (exact match, Rajpurkar et al. 2016)."""
    words = _NO_LETTER.sub(" ", unicodedata.normalize("NFKC", answer).casefold()).strip()
    return hashlib.sha256((words or answer.strip()).encode("utf-8", "replace")).digest()[:16]
