"""Evidence of running rollouts from log, feedback and questions, round by round; killed and started again anywhere."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flows import rollout_quality
from flows.complaints import Complaints
from flows.context import Context
from flows.rollout_entries import hashed
from flows.rollout_quality import RolloutQuality, step_times
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.ledger.rollout_state import Observations, RolloutState
from lake.recipe import Rollout, RolloutCheck, RolloutStep
from lake.records import ClusterStats, RolloutAction, RolloutDecision
from lake.settings import Settings
from tests.evidence import BEGAN, challenger, champion, entered, moved, plan, running_rollout, shadow
from tests.ports import free_ports
from tests.predictions import write_log

RECIPE = b"name: docs\nprepare: {quality: {toxicity: {words: [darn]}}}\n"
REFUSAL = "I'm sorry, but I can't help with that."
NOTHING = ClusterStats(n_requests=0, n_errors=0, latency_mean_ms=0, latency_p95_ms=0)
ANSWERS = ("agreement", "answer_length", "refusal_rate", "repetition", "language", "toxicity")


class Killed(BaseException):
    """As SIGKILL: nothing of the process catches it, nothing that it held is left."""


@pytest.fixture
def start(settings: Settings, bucket: Bucket, ledger: Ledger) -> Callable[[], RolloutQuality]:
    """A process that gathers evidence; calling it again is the next one."""
    bucket.put("recipes/docs.yaml", RECIPE)
    return lambda: RolloutQuality(Context(settings), Complaints(logging.getLogger("test")))


def values(ledger: Ledger, rollout: RolloutState, metric: str) -> list[float]:
    return [value for seen in entered(ledger, rollout.rollout_id, metric) for value in seen.paired]


def decision(action: RolloutAction, seconds: float) -> RolloutDecision:
    return RolloutDecision(
        rollout_id="docs-v2-1",
        model="docs",
        challenger="v2",
        champion="v1",
        action=action,
        from_stage="x",
        to_stage="y",
        reason="as asked",
        champion_stats=NOTHING,
        challenger_stats=NOTHING,
        decided_at=BEGAN + timedelta(seconds=seconds),
    )


def test_answers_in_the_shadow_are_scored_by_every_check(
    start: Callable[[], RolloutQuality], bucket: Bucket, ledger: Ledger
) -> None:
    rollout = running_rollout(ledger, plan(*ANSWERS, "error_rate"))
    quality = start()
    write_log(bucket, [champion(1), champion(2), champion(3)])
    quality.tick()
    assert ledger.rollout_observations.newest(rollout.rollout_id) == 0
    write_log(bucket, [shadow(1), shadow(2, REFUSAL), shadow(3, "Darn")], writer="replica-b")
    quality.tick()
    quality.tick()
    assert {metric: len(entered(ledger, rollout.rollout_id, metric)) for metric in ANSWERS} == dict.fromkeys(ANSWERS, 1)
    assert values(ledger, rollout, "refusal_rate") == [0, 1, 0]
    assert values(ledger, rollout, "toxicity") == [0, 0, 1]
    assert values(ledger, rollout, "repetition") == [0, 0, 0]
    assert values(ledger, rollout, "language") == [0, 0, 0]
    same, refused, cursed = values(ledger, rollout, "agreement")
    assert same == 0 and 0.8 < refused <= 1 and cursed == 1
    (seen,) = entered(ledger, rollout.rollout_id, "agreement")
    assert seen.step_index == 0
    assert seen.ids == tuple(hashed(f"request-{number:05d}") for number in (1, 2, 3))


def test_only_what_the_plan_checks_in_the_stage_is_entered(
    start: Callable[[], RolloutQuality], bucket: Bucket, ledger: Ledger
) -> None:
    rollout = running_rollout(ledger, plan("refusal_rate", "feedback", "latency_p95"))
    write_log(bucket, [champion(1), shadow(1), challenger(1)])
    bucket.put("feedback/docs/a.jsonl", b'{"request_id": "request-00001", "score": 1}')
    start().tick()
    told = ledger.rollout_observations.after(rollout.rollout_id, 0)
    assert [seen.metric for _, seen in told] == ["refusal_rate"]


def test_the_trouble_of_one_metric_is_told_once_and_stops_no_other(
    start: Callable[[], RolloutQuality], bucket: Bucket, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    rollout = running_rollout(ledger, plan("toxicity", "refusal_rate"))
    bucket.put("recipes/docs.yaml", b"name: docs\n")  # without a list
    quality = start()
    bucket.put("recipes/docs.yaml", b"name: docs\n")
    with caplog.at_level(logging.ERROR):
        for number in (1, 2):
            write_log(bucket, [champion(number), shadow(number)])
            quality.tick()
    assert len(values(ledger, rollout, "refusal_rate")) == 2
    assert values(ledger, rollout, "toxicity") == []
    (told,) = [record.getMessage() for record in caplog.records if record.name == "test"]
    assert "prepare.quality.toxicity" in told


def test_the_trouble_of_one_rollout_stops_no_other(
    start: Callable[[], RolloutQuality], bucket: Bucket, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    running_rollout(ledger, plan("refusal_rate"), model="bad")
    bucket.put("recipes/bad.yaml", b"name: [")
    rollout = running_rollout(ledger, plan("refusal_rate"))
    write_log(bucket, [champion(1), shadow(1)])
    with caplog.at_level(logging.ERROR):
        start().tick()
    assert values(ledger, rollout, "refusal_rate") == [0]
    assert [record.getMessage() for record in caplog.records if "bad-v2-1" in record.getMessage()]


@pytest.mark.parametrize("before", [True, False], ids=["before it is entered", "before it is remembered"])
def test_killed_at_any_entry_nothing_is_lost_or_entered_twice(
    start: Callable[[], RolloutQuality],
    bucket: Bucket,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    before: bool,
) -> None:
    """Every process dies at its first entry, then at its second, and so on, until one has nothing left to do."""
    rollout = running_rollout(ledger, plan(*ANSWERS))
    for first in (0, 10):
        rows = [side(number, f"word {number}") for number in range(first, first + 10) for side in (champion, shadow)]
        write_log(bucket, rows, writer=f"replica-{first}")
    n_killed = 0
    for nth in range(100):
        quality = start()
        observations = quality._context.ledger.rollout_observations
        add, left = observations.add, [nth % 3]

        def dying(rollout_id: str, seen: Observations, add: Any = add, left: list[int] = left) -> int:
            left[0] -= 1
            if left[0] >= 0:
                return int(add(rollout_id, seen))
            if not before:
                add(rollout_id, seen)
            raise Killed

        monkeypatch.setattr(observations, "add", dying)
        try:
            quality.tick()
        except Killed:
            n_killed += 1
        else:
            if left[0] == nth % 3:  # nothing was left
                break
        finally:
            quality._context.ledger.engine.dispose()
    assert n_killed >= 2
    wanted = sorted(hashed(f"request-{number:05d}") for number in range(20))
    for metric in ANSWERS:
        seen = entered(ledger, rollout.rollout_id, metric)
        assert sorted(identity for entry in seen for identity in entry.ids) == wanted
        assert all(len(entry.ids) == len(entry.paired) for entry in seen)


def test_a_long_log_is_read_in_portions(
    start: Callable[[], RolloutQuality], bucket: Bucket, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_quality, "MAX_LOG_OBJECTS", 2)
    rollout = running_rollout(ledger, plan("refusal_rate"))
    for number in range(5):
        write_log(bucket, [champion(number), shadow(number)])
    quality = start()
    n_told = []
    for _ in range(4):
        quality.tick()
        n_told.append(len(values(ledger, rollout, "refusal_rate")))
    assert n_told == [2, 4, 5, 5]


def test_more_pairs_than_a_round_takes_are_drawn(
    start: Callable[[], RolloutQuality], bucket: Bucket, ledger: Ledger
) -> None:
    rollout = running_rollout(ledger, plan("refusal_rate"))
    write_log(bucket, [side(number) for number in range(400) for side in (champion, shadow)])
    quality = start()
    for _ in range(2):
        quality.tick()
    assert len(values(ledger, rollout, "refusal_rate")) == 300


class TestLive:
    """A sticky split, and feedback on it."""

    PLAN = Rollout(
        steps=(
            RolloutStep(stage="shadow", share=1.0),
            RolloutStep(stage="ab", share=0.5, sticky="user"),
            RolloutStep(stage="canary", share=0.75, sticky="user"),
        ),
        checks=(RolloutCheck(metric="feedback"), RolloutCheck(metric="refusal_rate")),
    )

    @pytest.fixture
    def rollout(self, ledger: Ledger) -> RolloutState:
        """It went live at 100 s, and to the canary at 200 s."""
        begun = running_rollout(ledger, self.PLAN)
        for action, seconds in (("start", 0), ("hold", 50), ("promote", 100), ("promote", 200)):
            state = ledger.rollouts.get(begun.rollout_id)
            assert state is not None
            assert ledger.rollouts.weigh(state, {}, decision(action, seconds))  # type: ignore[arg-type]
        return moved(ledger, begun.rollout_id, step_index=2, entered_at=BEGAN + timedelta(seconds=200))

    def test_scores_count_in_their_steps_and_users_in_the_present_one(
        self, start: Callable[[], RolloutQuality], bucket: Bucket, ledger: Ledger, rollout: RolloutState
    ) -> None:
        rows = [champion(99), challenger(120), champion(130), challenger(220), champion(230, user="ann"), champion(231)]
        write_log(bucket, [*rows, shadow(230)])
        lines = [
            {"request_id": f"request-{number:05d}", "score": number / 1_000} for number in (99, 120, 130, 220, 230)
        ]
        bucket.put("feedback/docs/a.jsonl", "\n".join(map(json.dumps, lines)).encode())
        quality = start()
        for _ in range(2):
            quality.tick()
        assert [
            (seen.step_index, seen.champion, seen.challenger)
            for seen in entered(ledger, rollout.rollout_id, "feedback")
        ] == [(1, (0.13,), (0.12,)), (2, (0.23,), (0.22,))]
        (split,) = entered(ledger, rollout.rollout_id, "split")
        assert (split.step_index, split.champion, split.challenger) == (2, (1.0, 1.0), ())
        assert values(ledger, rollout, "refusal_rate") == []

    def test_a_rollout_that_goes_on_is_followed(
        self, start: Callable[[], RolloutQuality], bucket: Bucket, ledger: Ledger, rollout: RolloutState
    ) -> None:
        write_log(bucket, [champion(50), shadow(50), challenger(120), champion(130)])
        quality = start()
        steps = ((0, 0), (1, 100), (2, 200))
        for step_index, seconds in steps:
            moved(
                ledger,
                rollout.rollout_id,
                step_index=step_index,
                entered_at=BEGAN + timedelta(seconds=seconds),
            )
            quality.tick()
        write_log(bucket, [challenger(220), champion(240)], writer="replica-b")
        quality.tick()
        assert values(ledger, rollout, "refusal_rate") == [0]
        assert [seen.step_index for seen in entered(ledger, rollout.rollout_id, "split")] == [1, 2]

    def test_a_step_that_splits_requests_counts_no_users(
        self, start: Callable[[], RolloutQuality], bucket: Bucket, ledger: Ledger
    ) -> None:
        rollout = running_rollout(ledger, plan("feedback", stage="canary"))
        write_log(bucket, [challenger(20), champion(30)])
        start().tick()
        assert entered(ledger, rollout.rollout_id, "split") == []

    def test_an_ended_rollout_is_forgotten(
        self, start: Callable[[], RolloutQuality], bucket: Bucket, ledger: Ledger, rollout: RolloutState
    ) -> None:
        quality = start()
        quality.tick()
        assert list(quality._followed) == [rollout.rollout_id]
        moved(ledger, rollout.rollout_id, state="rolled_back")
        write_log(bucket, [challenger(220), champion(240)])
        quality.tick()
        assert quality._followed == {}
        assert ledger.rollout_observations.newest(rollout.rollout_id) == 0


def test_a_url_that_is_not_there_is_told_and_stops_nothing(
    start: Callable[[], RolloutQuality], bucket: Bucket, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)
    orders = RolloutCheck(metric="business:orders", url=f"http://127.0.0.1:{port}/", interval_s=1e-9)
    rollout = running_rollout(ledger, plan(orders, "feedback", stage="canary"))
    write_log(bucket, [challenger(1)])
    bucket.put("feedback/docs/a.jsonl", b'{"request_id": "request-00001", "score": 1}')
    quality = start()
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            quality.tick()
    told = [record.getMessage() for record in caplog.records if record.name == "test"]
    assert len(told) == 1 and "business:orders" in told[0]
    assert len(entered(ledger, rollout.rollout_id, "feedback")) == 1


def test_rollouts_that_have_not_begun_or_have_no_champion_are_left_alone(
    start: Callable[[], RolloutQuality], bucket: Bucket, ledger: Ledger
) -> None:
    rollout = running_rollout(ledger, plan("refusal_rate"))
    write_log(bucket, [champion(1), shadow(1)])
    quality = start()
    moved(ledger, rollout.rollout_id, step_index=-1)
    quality.tick()
    moved(ledger, rollout.rollout_id, step_index=0, champion=None)
    quality.tick()
    assert ledger.rollout_observations.newest(rollout.rollout_id) == 0


def test_it_goes_on_after_trouble_until_it_is_told_to_stop(
    start: Callable[[], RolloutQuality], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    quality, stopping, ticks = start(), threading.Event(), []

    def tick() -> None:
        ticks.append(None)
        if len(ticks) == 3:
            stopping.set()
        raise ValueError("trouble")

    monkeypatch.setattr(quality, "tick", tick)
    with caplog.at_level(logging.ERROR):
        quality.run(stopping, every_s=0.001)
    assert len(ticks) == 3
    assert [record.getMessage() for record in caplog.records if record.name == "test"] == [
        "evidence of rollouts: trouble"
    ]


def test_the_times_of_steps_come_from_the_decisions() -> None:
    state = RolloutState(
        rollout_id="docs-v2-1",
        model="docs",
        challenger="v2",
        champion="v1",
        plan=TestLive.PLAN,
        step_index=1,
        state="running",
        started_at=BEGAN,
        entered_at=BEGAN + timedelta(seconds=101),
    )
    told = [decision("start", 1), decision("hold", 30), decision("promote", 100)]
    assert step_times(state, told) == {0: BEGAN + timedelta(seconds=1), 1: state.entered_at}
    assert step_times(state, told[1:]) == {1: state.entered_at}  # an experiment, say, that began otherwise
