"""Feedback: what a line may be, and how it finds its answer."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import rollout_feedback
from flows.rollout_entries import Entries
from flows.rollout_feedback import FEEDBACK, Feedback, FeedbackReader, FeedbackScores, digest, parse
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.ledger.rollout_state import RolloutState
from lake.records import PredictionLog
from tests.evidence import challenger, champion, entered, plan, running_rollout, shadow


def given_score(number: int, score: float = 1.0) -> Feedback:
    return Feedback(request_id=f"request-{number:05d}", score=score)


def expected(number: int, answer: str) -> Feedback:
    return Feedback(request_id=f"request-{number:05d}", expected=answer)


def line(**told: object) -> bytes:
    return json.dumps(told).encode()


def test_lines_are_scores_or_right_answers() -> None:
    body = b"\n".join(
        [
            line(request_id="a", score=0.5),
            b"",
            line(request_id="b", score=1, comment="what else they like"),
            line(request_id="c", label="positive"),
            line(request_id="d", expected="42", label="ignored", score=None),
        ]
    )
    found, malformed = parse(body)
    assert malformed is None
    assert [(one.request_id, one.score, one.right_answer) for one in found] == [
        ("a", 0.5, None),
        ("b", 1.0, None),
        ("c", None, "positive"),
        ("d", None, "42"),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        b"{",
        b"[]",
        b"3",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        line(score=1),
        line(request_id="a"),
        line(request_id="", score=1),
        line(request_id="x" * 129, score=1),
        line(request_id=7, score=1),
        line(request_id="a", score=1.01),
        line(request_id="a", score=-0.1),
        line(request_id="a", score="1"),
        line(request_id="a", score=True),
        b'{"request_id": "a", "score": NaN}',
        b'{"request_id": "a", "score": Infinity}',
        b'{"request_id": "a", "score": 1' + b"0" * 400 + b"}",
        line(request_id="a", label=3),
        line(request_id="a", expected="x" * 20_001),
    ],
)
def test_a_malformed_line_is_counted_and_left_out(wrong: bytes) -> None:
    found, malformed = parse(line(request_id="a", score=1) + b"\n" + wrong + b"\n" + line(request_id="b", score=0))
    assert [one.request_id for one in found] == ["a", "b"]
    assert malformed is not None and malformed.n_lines == 1
    assert malformed.first.startswith("line 2: ")


def test_what_is_wrong_quotes_nobody() -> None:
    _, malformed = parse(line(request_id="a", score="joe@example.com") + b"\njoe@example.com")
    assert malformed is not None and malformed.n_lines == 2
    assert "joe" not in malformed.first


@given(st.binary(max_size=200))
def test_any_bytes_are_read(body: bytes) -> None:
    parse(body)


class TestReader:
    SINCE = datetime(2026, 1, 5, tzinfo=UTC)

    def test_an_object_is_read_once(self, bucket: Bucket) -> None:
        reader = FeedbackReader(bucket, "docs", self.SINCE)
        assert reader.read() == []
        bucket.put("feedback/docs/any/name.jsonl", line(request_id="a", score=1))
        bucket.put("feedback/docs-2/other.jsonl", line(request_id="x", score=1))
        assert [one.request_id for one in reader.read()] == ["a"]
        assert reader.read() == []
        bucket.put("feedback/docs/any/name.jsonl", line(request_id="b", score=1))  # overwritten
        assert [one.request_id for one in reader.read()] == ["b"]

    def test_objects_from_before_are_left_alone(self, bucket: Bucket) -> None:
        bucket.put("feedback/docs/a.jsonl", line(request_id="a", score=1))
        assert FeedbackReader(bucket, "docs", datetime.now(UTC) + timedelta(hours=2)).read() == []

    def test_what_is_wrong_is_told_once_and_stops_nothing(
        self, bucket: Bucket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rollout_feedback, "MAX_OBJECT_BYTES", 1_000)
        bucket.put("feedback/docs/a.csv", b"request_id,score")
        bucket.put("feedback/docs/b.jsonl", b"{\n{\n" + line(request_id="b", score=1))
        bucket.put("feedback/docs/c.jsonl", b" " * 2_000)
        bucket.put("feedback/docs/d.jsonl", line(request_id="d", score=1))
        reader = FeedbackReader(bucket, "docs", self.SINCE)
        with caplog.at_level(logging.WARNING):
            assert [one.request_id for one in reader.read()] == ["b", "d"]
            assert reader.read() == []
        told = [record.getMessage() for record in caplog.records if record.name == "tidemill.serve"]
        assert [message.split()[0].rstrip(":") for message in told] == [
            "feedback/docs/a.csv",
            "feedback/docs/b.jsonl",
            "feedback/docs/c.jsonl",
        ]
        assert "2 lines are left out; line 1: no JSON" in told[1]

    def test_many_objects_are_read_in_portions(self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rollout_feedback, "MAX_OBJECTS", 2)
        for number in range(3):
            bucket.put(f"feedback/docs/{number}.jsonl", line(request_id=str(number), score=1))
        reader = FeedbackReader(bucket, "docs", self.SINCE)
        assert [[one.request_id for one in reader.read()] for _ in range(3)] == [["0", "1"], ["2"], []]


@pytest.fixture
def rollout(ledger: Ledger) -> RolloutState:
    return running_rollout(ledger, plan("feedback", stage="ab"))


@pytest.fixture
def scores(ledger: Ledger, rollout: RolloutState) -> FeedbackScores:
    return FeedbackScores("v1", "v2", Entries(ledger.rollout_observations, rollout.rollout_id))


def told(ledger: Ledger, rollout: RolloutState) -> list[tuple[int, tuple[float, ...], tuple[float, ...]]]:
    return [(seen.step_index, seen.champion, seen.challenger) for seen in entered(ledger, rollout.rollout_id, FEEDBACK)]


def in_step(step_index: int, *rows: PredictionLog) -> list[tuple[int, PredictionLog]]:
    return [(step_index, row) for row in rows]


def test_a_score_goes_to_the_version_that_answered(
    ledger: Ledger, rollout: RolloutState, scores: FeedbackScores
) -> None:
    rows = in_step(0, challenger(1), champion(2), champion(3), challenger(4))
    scores.take(rows, [given_score(3, 0.75), given_score(1, 0.25), given_score(2, 0.5)])
    assert told(ledger, rollout) == [(0, (0.75, 0.5), (0.25,))]


def test_either_may_come_first(ledger: Ledger, rollout: RolloutState, scores: FeedbackScores) -> None:
    scores.take([], [given_score(1, 0.5)])
    scores.take(in_step(0, challenger(1), champion(2)), [])
    scores.take([], [given_score(2, 1.0)])
    assert told(ledger, rollout) == [(0, (), (0.5,)), (0, (1.0,), ())]


def test_the_first_score_of_a_request_counts(ledger: Ledger, rollout: RolloutState, scores: FeedbackScores) -> None:
    scores.take(in_step(0, challenger(1)), [given_score(1, 0.5), given_score(1, 0.0)])
    scores.take([], [given_score(1, 1.0)])
    assert told(ledger, rollout) == [(0, (), (0.5,))]


def test_a_restart_enters_nothing_twice(ledger: Ledger, rollout: RolloutState, scores: FeedbackScores) -> None:
    rows = in_step(0, challenger(1), champion(2), challenger(3))
    scores.take(rows, [given_score(1, 0.5), given_score(2, 1.0)])
    again = FeedbackScores("v1", "v2", Entries(ledger.rollout_observations, rollout.rollout_id))
    again.take(rows, [given_score(1, 0.5), given_score(2, 1.0), given_score(3, 0.0)])
    assert told(ledger, rollout) == [(0, (1.0,), (0.5,)), (0, (), (0.0,))]


def test_each_score_counts_in_the_step_of_its_request(
    ledger: Ledger, rollout: RolloutState, scores: FeedbackScores
) -> None:
    rows = [*in_step(1, challenger(1)), *in_step(2, challenger(20))]
    scores.take(rows, [given_score(1, 0.5), given_score(20, 1.0)])
    assert told(ledger, rollout) == [(1, (), (0.5,)), (2, (), (1.0,))]


def test_answers_that_had_no_counterpart_are_left_out(
    ledger: Ledger, rollout: RolloutState, scores: FeedbackScores
) -> None:
    """From before the challenger took part, copies, failures, versions that somebody asked for, others."""
    rows = in_step(
        0,
        champion(1),
        challenger(5),
        champion(6, status=500),
        shadow(7),
        champion(8, pinned=True),
        champion(9, version="v0"),
    )
    scores.take(rows, [given_score(number) for number in (1, 6, 7, 8, 9, 10)])
    assert told(ledger, rollout) == []
    scores.take([], [given_score(5)])
    assert told(ledger, rollout) == [(0, (), (1.0,))]


def test_the_right_answer_scores_one(ledger: Ledger, rollout: RolloutState, scores: FeedbackScores) -> None:
    rows = in_step(
        0,
        challenger(1, "Positive."),
        challenger(2, "I think it is positive."),
        challenger(3, "Write to <EMAIL>"),  # as the log has it
        champion(4, "ＯＫ"),
        champion(5, "👍"),
        champion(6, "👎"),
        champion(7, ""),
    )
    right = {1: " positive", 2: "positive", 3: "write to joe@example.com", 4: "ok", 5: "👍", 6: "👍", 7: "ok"}
    scores.take(rows, [expected(number, answer) for number, answer in right.items()])
    assert told(ledger, rollout) == [(0, (1.0, 1.0, 0.0, 0.0), (1.0, 0.0, 1.0))]


def test_a_given_score_goes_before_a_right_answer(
    ledger: Ledger, rollout: RolloutState, scores: FeedbackScores
) -> None:
    both = Feedback(request_id="request-00001", score=0.25, expected="Positive")
    scores.take(in_step(0, challenger(1, "positive")), [both])
    assert told(ledger, rollout) == [(0, (), (0.25,))]


def test_what_waits_is_bounded(
    ledger: Ledger, rollout: RolloutState, scores: FeedbackScores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_feedback, "MAX_ANSWERS", 5)
    monkeypatch.setattr(rollout_feedback, "MAX_UNANSWERED", 5)
    scores.take(in_step(0, *(challenger(number) for number in range(10))), [])
    scores.take([], [given_score(number) for number in range(10)])
    assert told(ledger, rollout) == [(0, (), (1.0,) * 5)]
    scores.take([], [given_score(number) for number in range(100, 120)])
    scores.take(in_step(0, *(challenger(number) for number in range(100, 120))), [])
    assert told(ledger, rollout)[1:] == [(0, (), (1.0,) * 5)]


def test_case_punctuation_and_space_make_no_other_answer() -> None:
    assert digest("  The answer:\n42. ") == digest("the ANSWER 42")
    assert digest("42") != digest("43")
    assert digest("+") != digest("-")
