from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from bentos.controller import Controller
from bentos.health import Health
from bentos.orders import INJECT_VARIABLE, approve, begin_rollout, longest_s, request_rollback, undo
from bentos.replicas import Replicas
from bentos.targets.local import LocalTarget
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.rollout_state import CoolingDownError, RolloutState
from lake.ledger.tables import rollouts
from lake.recipe import Rollout, RolloutStep
from lake.settings import Settings

MODEL = "docs"
PLAN = Rollout(
    steps=(RolloutStep(stage="canary", share=0.5, min_requests=10, max_duration_s=60),),
    cool_down_s=2,
    retain_champion_s=60,
)


@pytest.fixture
def controller(settings: Settings, ledger: Ledger) -> Controller:
    """Beside no supervisor and no gateway: only what it does to the ledger is looked at."""
    return Controller(ledger, LocalTarget(settings, Replicas(settings)))


@pytest.fixture
def enter(ledger: Ledger) -> None:
    """Versions v1 to v3 of the model."""
    for number in (1, 2, 3):
        ledger.versions.allocate(model=MODEL, training_key=str(number), reason="drop", dataset_ids=("d",), parent=None)


@pytest.fixture
def champion(ledger: Ledger, enter: None) -> str:
    ledger.versions.crown(MODEL, "v1")
    return "v1"


def begin(settings: Settings, ledger: Ledger, version: str = "v2", error_rate: float = 0.0) -> RolloutState:
    return begin_rollout(
        settings,
        ledger,
        model=MODEL,
        version=version,
        tag=f"{MODEL}:{version}",
        plan=PLAN,
        inject_error_rate=error_rate,
    )


def version_state(ledger: Ledger, version: str) -> str:
    found = ledger.versions.get(MODEL, version)
    assert found is not None
    return found.state


def actions(ledger: Ledger, rollout: RolloutState) -> list[str]:
    return [decision.action for decision in ledger.rollouts.decisions(rollout.rollout_id)]


def make_ready(controller: Controller, version: str) -> None:
    now_s = time.monotonic()
    controller._health[MODEL, version] = Health(since_s=now_s).seen("ready", "1", now_s)


def make_dead(controller: Controller, version: str) -> None:
    make_ready(controller, version)
    controller._health[MODEL, version] = controller._health[MODEL, version].seen("ready", "2", time.monotonic())


def test_a_rollout_begins_with_its_replica_against_the_champion(
    settings: Settings, ledger: Ledger, champion: str
) -> None:
    rollout = begin(settings, ledger)
    assert (rollout.champion, rollout.step_index, rollout.plan) == ("v1", -1, PLAN)
    assert version_state(ledger, "v2") == "challenger"
    (replica,) = ledger.rollouts.wanted_replicas()
    assert (replica.version, replica.tag, replica.environment) == ("v2", "docs:v2", {})


def test_beginning_again_begins_nothing_new(settings: Settings, ledger: Ledger, champion: str) -> None:
    assert begin(settings, ledger) == begin(settings, ledger)
    assert len(ledger.rollouts.of_model(MODEL)) == 1


def test_a_drill_injects_errors_into_the_replica(settings: Settings, ledger: Ledger, champion: str) -> None:
    begin(settings, ledger, error_rate=0.6)
    (replica,) = ledger.rollouts.wanted_replicas()
    assert replica.environment == {INJECT_VARIABLE: "0.6"}


@pytest.mark.parametrize(("version", "got"), [("v1", "is champion"), ("v9", "is unknown")])
def test_what_cannot_challenge_is_refused(
    settings: Settings, ledger: Ledger, champion: str, version: str, got: str
) -> None:
    with pytest.raises(TidemillError, match=got):
        begin(settings, ledger, version)
    assert ledger.rollouts.of_model(MODEL) == []


def test_another_challenger_waits_for_the_end_of_the_first(settings: Settings, ledger: Ledger, champion: str) -> None:
    begin(settings, ledger, "v2")
    began: list[RolloutState] = []
    waiting = threading.Thread(target=lambda: began.append(begin(settings, ledger, "v3")))
    waiting.start()
    request_rollback(ledger, MODEL, "make room")
    waiting.join(timeout=30)
    assert [state.challenger for state in began] == ["v3"]


def test_waiting_ends_when_the_other_rollout_should_have(settings: Settings, ledger: Ledger, champion: str) -> None:
    other = begin(settings, ledger, "v2")
    long_ago = datetime.now(UTC) - timedelta(seconds=longest_s(PLAN) + 1)
    with ledger.engine.begin() as connection:
        connection.execute(update(rollouts).values(started_at=long_ago))
    with pytest.raises(TidemillError, match="tidemill rollout back docs"):
        begin(settings, ledger, "v3")
    assert ledger.rollouts.running()[0].rollout_id == other.rollout_id


def test_a_rollback_ends_the_rollout_once(settings: Settings, ledger: Ledger, champion: str) -> None:
    rollout = begin(settings, ledger)
    request_rollback(ledger, MODEL, "an operator asked for it")
    assert actions(ledger, rollout) == ["roll_back"]
    found = ledger.versions.get(MODEL, "v2")
    assert found is not None
    assert (found.state, found.message) == ("rolled_back", "an operator asked for it")
    with pytest.raises(TidemillError, match="docs-v2-1, is rolled_back"):
        request_rollback(ledger, MODEL, "again")
    assert actions(ledger, rollout) == ["roll_back"]


def test_a_rollback_without_any_rollout_is_refused(ledger: Ledger) -> None:
    with pytest.raises(TidemillError, match="no rollout at all"):
        request_rollback(ledger, MODEL, "why not")


def test_a_version_that_served_is_retired_again(settings: Settings, ledger: Ledger, champion: str) -> None:
    ledger.versions.crown(MODEL, "v2")
    begin(settings, ledger, "v1", error_rate=0.5)
    request_rollback(ledger, MODEL, "the drill is over")
    assert version_state(ledger, "v1") == "retired"
    assert version_state(ledger, "v2") == "champion"


def test_the_first_version_is_crowned_when_it_is_ready(
    settings: Settings, ledger: Ledger, controller: Controller, enter: None
) -> None:
    rollout = begin(settings, ledger, "v1")
    controller._advance(rollout, None)
    assert ledger.versions.champion(MODEL) is None
    make_ready(controller, "v1")
    controller._advance(rollout, None)
    crowned = ledger.versions.champion(MODEL)
    assert crowned is not None
    assert (crowned.version, crowned.live_at is not None) == ("v1", True)
    assert ledger.rollouts.running() == []


def test_a_dead_challenger_leaves_the_champion(
    settings: Settings, ledger: Ledger, controller: Controller, champion: str
) -> None:
    rollout = begin(settings, ledger)
    make_ready(controller, "v2")
    controller._advance(rollout, None)
    make_dead(controller, "v2")
    controller._advance(ledger.rollouts.running()[0], None)
    assert actions(ledger, rollout) == ["start", "roll_back"]
    assert (version_state(ledger, "v1"), version_state(ledger, "v2")) == ("champion", "rolled_back")


def test_a_decision_that_comes_too_late_changes_and_records_nothing(
    settings: Settings, ledger: Ledger, controller: Controller, champion: str
) -> None:
    stale = begin(settings, ledger)
    request_rollback(ledger, MODEL, "first")
    make_ready(controller, "v2")
    controller._advance(stale, None)
    make_dead(controller, "v2")
    controller._advance(stale, None)
    assert actions(ledger, stale) == ["roll_back"]
    assert version_state(ledger, "v2") == "rolled_back"


def test_a_needed_replica_cannot_be_dropped(settings: Settings, ledger: Ledger, champion: str) -> None:
    ledger.rollouts.want_replica(model=MODEL, version="v1", tag="docs:v1", environment={})
    begin(settings, ledger)
    assert not ledger.rollouts.drop_replica(MODEL, "v1")
    assert not ledger.rollouts.drop_replica(MODEL, "v2")
    request_rollback(ledger, MODEL, "away with it")
    assert ledger.rollouts.drop_replica(MODEL, "v2")
    assert [replica.version for replica in ledger.rollouts.wanted_replicas()] == ["v1"]


def test_trouble_with_neighbours_is_told_once_and_the_ledger_stays(
    settings: Settings,
    ledger: Ledger,
    controller: Controller,
    champion: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bentos.arbiter.CALL_TIMEOUT_S", 0.1)
    rollout = begin(settings, ledger)
    for _ in range(3):
        controller.tick()
    told = [record.getMessage().split(":")[0] for record in caplog.records if record.levelname == "ERROR"]
    assert sorted(told) == ["gateway", "replicas"]
    assert sorted(alarm.subject for alarm in ledger.alarms.open()) == ["gateway", "replicas"]
    assert ledger.rollouts.running() == [rollout]


def test_after_a_rollback_the_next_challenger_waits(settings: Settings, ledger: Ledger, champion: str) -> None:
    rollout = begin(settings, ledger, "v2")
    ledger.rollouts.finish(rollout.rollout_id, "rolled_back")
    with pytest.raises(CoolingDownError):
        ledger.rollouts.offer(model=MODEL, challenger="v3", plan=PLAN, tag="docs:v3", environment={})
    assert begin(settings, ledger, "v3").challenger == "v3"


def promote(settings: Settings, ledger: Ledger) -> RolloutState:
    """v2 replaces v1, whose replica runs."""
    ledger.rollouts.want_replica(model=MODEL, version="v1", tag="docs:v1", environment={})
    rollout = begin(settings, ledger, "v2")
    ledger.rollouts.finish(rollout.rollout_id, "promoted")
    return rollout


def test_an_undo_gives_the_traffic_back_at_once(settings: Settings, ledger: Ledger, champion: str) -> None:
    rollout = promote(settings, ledger)
    later = begin(settings, ledger, "v3")
    assert undo(ledger, MODEL, "it is rude").rollout_id == rollout.rollout_id
    assert (version_state(ledger, "v1"), version_state(ledger, "v2")) == ("champion", "rolled_back")
    ended = ledger.rollouts.get(later.rollout_id)
    assert ended is not None
    assert ended.state == "rolled_back"
    with pytest.raises(TidemillError, match="a champion that came by a rollout"):
        undo(ledger, MODEL, "again")


def test_an_undo_starts_a_champion_that_is_kept_no_longer(
    settings: Settings, ledger: Ledger, controller: Controller, champion: str
) -> None:
    promote(settings, ledger)
    ledger.rollouts.drop_replica(MODEL, "v1")
    undo(ledger, MODEL, "it is rude")
    assert version_state(ledger, "v2") == "champion"  # until v1 can answer
    (again,) = ledger.rollouts.running()
    make_ready(controller, "v1")
    controller._advance(again, None)
    assert (version_state(ledger, "v1"), version_state(ledger, "v2")) == ("champion", "retired")


def test_there_is_nothing_to_undo_before_the_first_rollout(ledger: Ledger) -> None:
    with pytest.raises(TidemillError, match="no rollout at all"):
        undo(ledger, MODEL, "why not")


def test_only_a_step_that_pauses_is_approved(settings: Settings, ledger: Ledger, champion: str) -> None:
    step = RolloutStep(stage="canary", share=0.5, pause="approval")
    rollout = begin_rollout(settings, ledger, model=MODEL, version="v2", tag="docs:v2", plan=Rollout(steps=(step,)))
    with pytest.raises(TidemillError, match="pauses for approval"):
        approve(ledger, MODEL)
    ledger.rollouts.enter_step(rollout.rollout_id, -1, 0, None)
    assert approve(ledger, MODEL).rollout_id == rollout.rollout_id
    found = ledger.rollouts.get(rollout.rollout_id)
    assert found is not None
    assert found.approved_step == 0
