"""What `serve` hands over and takes up again, told by the ledger alone; flows are noted instead of begun."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.flows import Flow

from flows import handover
from flows.complaints import Complaints
from flows.context import Context
from flows.handover import Handover
from flows.reaper import Reaper
from flows.running import InHand
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.process_owner import process_owner
from lake.records import Dataset, ObjectRef
from lake.settings import Settings
from tests.stages import commit_record

NOW = datetime.now(UTC)


class NotedThreads:
    """Stands in for the threads: what would be begun is noted, and what goes on is what the test says."""

    def __init__(self) -> None:
        self.started: list[tuple[str, dict[str, Any]]] = []
        self.running: list[InHand] = []

    def start(self, flow: Flow[..., Any], model: str, deployment: str, **more: Any) -> None:
        self.started.append((flow.name, more))

    def do(self, what: str, action: Callable[[], object]) -> None:
        pass

    def in_hand(self, model: str, *wanted: Flow[..., Any]) -> list[InHand]:
        return [found for found in self.running if found.flow in {flow.name for flow in wanted}]


@pytest.fixture
def context(settings: Settings, bucket: Bucket, ledger: Ledger) -> Context:
    bucket.put("recipes/m.yaml", b"name: m\ntraining: {min_documents: 10}\n")
    return Context(settings)


@pytest.fixture
def threads() -> NotedThreads:
    return NotedThreads()


@pytest.fixture
def tick(context: Context, threads: NotedThreads, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    monkeypatch.setattr(Reaper, "crash_orphaned_runs", lambda _: 0)  # it wants a Prefect server
    log = logging.getLogger("test")
    handed = Handover(context, threads, Reaper(context), Complaints(log))  # type: ignore[arg-type]

    def look() -> None:
        handed._look_after("m")

    return look


def drop(context: Context, name: str, state: str = "closed", n_documents: int = 0, owner: str | None = None) -> str:
    """A drop of one object in a state, with its dataset when it has documents. Returns its id."""
    ref = ObjectRef(bucket="b", key=f"inbox/m/{name}", etag="e", size_bytes=1, last_modified=NOW)
    context.ledger.arrivals.reconcile("m", [[ref]], NOW, whole=False)
    closed = context.ledger.arrivals.close_drop("m", 0, NOW)
    assert closed is not None
    dataset_id = f"dataset-{name}" if n_documents else None
    if dataset_id:
        dataset = Dataset(
            dataset_id=dataset_id,
            model="m",
            drop_id=closed.drop_id,
            prefix=f"datasets/m/{dataset_id}/",
            history_ids=(),
            n_objects=1,
            n_read=n_documents,
            n_kept=n_documents,
            rejected={},
            redacted={},
            n_documents={"train": n_documents},
            n_characters={"train": n_documents},
        )
        commit_record(context.ledger, "prepare", "m", dataset_id, dataset)
    assert context.ledger.drops.move(closed.drop_id, "closed", state, NOW, owner=owner, dataset_id=dataset_id)
    return closed.drop_id


def version(context: Context, *dataset_ids: str, state: str = "candidate", reason: str = "drop") -> str:
    made = context.ledger.versions.allocate(
        model="m", training_key=str((dataset_ids, state)), reason=reason, dataset_ids=dataset_ids, parent=None
    )
    if state != "candidate":
        context.ledger.versions.move("m", made.version, state, expected=["candidate"])
    return made.version


def states(context: Context) -> list[str]:
    return [found.state for found in context.ledger.drops.states("m")]


def test_a_drop_that_no_flow_of_this_process_works_on_is_given_back(
    context: Context, threads: NotedThreads, tick: Callable[[], None]
) -> None:
    """The ledger was away when its flow ended."""
    drop_id = drop(context, "a", "preparing", owner=process_owner())
    threads.running = [InHand("pipeline", "m", {"drop_id": drop_id})]
    tick()
    assert states(context) == ["preparing"]
    threads.running = [InHand("pipeline", "m", {"drop_id": "another"})]
    tick()
    (found,) = context.ledger.drops.states("m")
    assert (found.state, found.owner) == ("closed", None)
    assert found.not_before is not None and "could not tell how it ended" in (found.message or "")


def test_another_process_drops_are_its_own(context: Context, tick: Callable[[], None]) -> None:
    drop(context, "a", "preparing", owner="another-host:boot:1:1")
    tick()
    assert states(context) == ["preparing"]


def test_a_training_that_no_flow_works_on_waits_again_and_is_taken_up(
    context: Context, threads: NotedThreads, tick: Callable[[], None]
) -> None:
    drop(context, "a", "training", 20, process_owner())
    version(context, "dataset-a", reason="drift")
    threads.running = [InHand("retrain", "m", {})]
    tick()
    assert (states(context), threads.started) == (["training"], [])
    threads.running = []
    tick()
    assert states(context) == ["waiting"]
    assert threads.started == [("retrain", {"reason": "drift"})]
    tick()
    assert len(threads.started) == 1  # not at every look


def test_what_waits_is_trained_on_although_nobody_has_said_so(
    context: Context, threads: NotedThreads, tick: Callable[[], None]
) -> None:
    """The process died between the preparation and the version."""
    drop(context, "a", "waiting", 6)
    drop(context, "b", "waiting", 6)
    tick()
    assert threads.started == [("retrain", {"reason": "manual"})]


def test_too_little_goes_on_waiting(context: Context, threads: NotedThreads, tick: Callable[[], None]) -> None:
    drop(context, "a", "waiting", 6)
    tick()
    assert threads.started == []


def test_what_was_tried_and_failed_waits_for_more_data(
    context: Context, threads: NotedThreads, tick: Callable[[], None]
) -> None:
    drop(context, "a", "waiting", 20)
    version(context, "dataset-a", state="failed")
    tick()
    assert threads.started == []


def test_data_that_a_rejected_version_has_used_up_is_not_trained_on_again(
    context: Context, threads: NotedThreads, tick: Callable[[], None]
) -> None:
    """The process died after the gate and before it said so."""
    drop(context, "a", "waiting", 20)
    version(context, "dataset-a", state="rejected")
    tick()
    assert (states(context), threads.started) == (["trained"], [])


def test_a_packaged_version_is_offered_once_its_data_is_settled(
    context: Context, threads: NotedThreads, tick: Callable[[], None]
) -> None:
    drop_id = drop(context, "a", "waiting", 20)
    name = version(context, "dataset-a", state="ready")
    tick()
    assert threads.started == [("retrain", {"reason": "manual"})]  # which settles it, and offers it
    context.ledger.drops.move(drop_id, "waiting", "trained", NOW)
    tick()
    assert threads.started[1:] == [("roll-out", {"version": name, "only_ready": True})]


def test_a_confirmed_drift_is_answered_by_one_version(
    context: Context, threads: NotedThreads, tick: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Verdict:
        drift_id, decided_at = "w1", NOW - timedelta(minutes=1)

    monkeypatch.setattr(handover, "new_window", lambda *_: False)
    monkeypatch.setattr(handover, "confirmed_drift", lambda *_: Verdict)
    monkeypatch.setattr(Handover, "_is_due", lambda *_: True)
    tick()
    assert threads.started == []  # there is nothing to train on
    drop(context, "a", "waiting", 2)
    tick()
    assert threads.started == [("retrain", {"reason": "drift"})]
    tick()
    assert len(threads.started) == 2  # the process may have died before it made the version
    version(context, "dataset-a", state="failed", reason="drift")
    tick()
    assert len(threads.started) == 2
