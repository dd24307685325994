"""Rollouts in the ledger: one at a time for a model, steps by compare-and-set, what follows from the end of one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from pydantic import ValidationError
from sqlalchemy import update

from lake.ledger import Ledger
from lake.ledger.rollout_state import CoolingDownError, Observations, RolloutState, RolloutUnderWayError
from lake.ledger.tables import rollouts
from lake.recipe import Rollout
from lake.records import ClusterStats, RolloutAction, RolloutDecision
from lake.settings import Settings
from tests.concurrently import concurrently

PLAN = Rollout()
NOTHING = ClusterStats(n_requests=0, n_errors=0, latency_mean_ms=0, latency_p95_ms=0)


@pytest.fixture
def three_versions(ledger: Ledger) -> Ledger:
    """v1 is the champion; v2 and v3 are candidates."""
    for key in ("one", "two", "three"):
        ledger.versions.allocate(model="docs", training_key=key, reason="drop", dataset_ids=("d",), parent=None)
    ledger.versions.crown("docs", "v1")
    return ledger


def offer(ledger: Ledger, challenger: str = "v2", **environment: str) -> RolloutState:
    return ledger.rollouts.offer(
        model="docs", challenger=challenger, plan=PLAN, tag=f"docs:{challenger}", environment=environment, cooled=True
    )


def decision(rollout: RolloutState, action: RolloutAction, reason: str = "as asked") -> RolloutDecision:
    return RolloutDecision(
        rollout_id=rollout.rollout_id,
        model=rollout.model,
        challenger=rollout.challenger,
        champion=rollout.champion,
        action=action,
        from_stage="canary",
        to_stage="full",
        reason=reason,
        champion_stats=NOTHING,
        challenger_stats=NOTHING,
        decided_at=datetime.now(UTC),
    )


def state_of(ledger: Ledger, version: str) -> str:
    found = ledger.versions.get("docs", version)
    assert found is not None
    return found.state


def test_an_offer_begins_a_rollout_with_its_replica(three_versions: Ledger, settings: Settings) -> None:
    rollout = offer(three_versions, FAULT="0.5")
    assert (rollout.champion, rollout.step_index, rollout.state, rollout.plan) == ("v1", -1, "running", PLAN)
    assert state_of(three_versions, "v2") == "challenger"
    (replica,) = three_versions.rollouts.wanted_replicas()
    assert (replica.version, replica.port, replica.environment) == (
        "v2",
        settings.replica_port_first,
        {"FAULT": "0.5"},
    )


def test_offering_again_is_the_same_rollout(three_versions: Ledger) -> None:
    assert offer(three_versions) == offer(three_versions)
    assert len(three_versions.rollouts.running()) == 1


def test_two_challengers_of_a_model_are_not_rolled_out_at_once(three_versions: Ledger) -> None:
    running = offer(three_versions, "v2")
    with pytest.raises(RolloutUnderWayError) as caught:
        offer(three_versions, "v3")
    assert caught.value.running == running
    assert state_of(three_versions, "v3") == "candidate"
    assert len(three_versions.rollouts.wanted_replicas()) == 1


def test_offers_at_once_leave_one_rollout(three_versions: Ledger) -> None:
    def attempt(challenger: str) -> str | None:
        try:
            return offer(three_versions, challenger).rollout_id
        except RolloutUnderWayError:
            return None

    started = concurrently([partial(attempt, challenger) for challenger in ("v2", "v3") * 3])
    assert len(set(started) - {None}) == 1
    assert len(three_versions.rollouts.running()) == 1


@pytest.mark.parametrize("version", ["v1", "v9"])
def test_the_champion_or_an_unknown_version_cannot_be_offered(three_versions: Ledger, version: str) -> None:
    with pytest.raises(ValueError, match="expected a version that does not serve"):
        offer(three_versions, version)


def test_a_step_is_entered_once(three_versions: Ledger) -> None:
    rollout = offer(three_versions)
    enter = partial(three_versions.rollouts.enter_step, rollout.rollout_id, -1, 0, {"n": 1})
    won = concurrently([partial(enter, decision(rollout, "start")) for _ in range(4)])
    assert sum(won) == 1
    assert len(three_versions.rollouts.decisions(rollout.rollout_id)) == 1
    entered = three_versions.rollouts.get(rollout.rollout_id)
    assert entered is not None
    assert (entered.step_index, entered.evidence, entered.revision) == (0, {"n": 1}, 1)
    assert entered.entered_at >= rollout.entered_at


def test_a_promoted_challenger_is_the_champion(three_versions: Ledger) -> None:
    rollout = offer(three_versions)
    won = concurrently(
        [partial(three_versions.rollouts.finish, rollout.rollout_id, "promoted", decision(rollout, "promote"))] * 4
    )
    assert sum(won) == 1
    assert (state_of(three_versions, "v1"), state_of(three_versions, "v2")) == ("retired", "champion")
    assert len(three_versions.rollouts.decisions(rollout.rollout_id)) == 1
    assert not three_versions.rollouts.enter_step(rollout.rollout_id, -1, 0, None)


def test_a_challenger_is_rolled_back_with_the_reason(three_versions: Ledger) -> None:
    rollout = offer(three_versions)
    assert three_versions.rollouts.finish(rollout.rollout_id, "rolled_back", decision(rollout, "roll_back", "slow"))
    found = three_versions.versions.get("docs", "v2")
    assert found is not None
    assert (found.state, found.message) == ("rolled_back", "slow")
    assert state_of(three_versions, "v1") == "champion"
    again = offer(three_versions)
    assert again.rollout_id != rollout.rollout_id
    assert [found.rollout_id for found in three_versions.rollouts.of_model("docs")] == [
        rollout.rollout_id,
        again.rollout_id,
    ]


def test_a_version_that_has_served_before_is_retired_when_sent_back(three_versions: Ledger) -> None:
    three_versions.versions.crown("docs", "v2")
    rollout = offer(three_versions, "v1")
    three_versions.rollouts.finish(rollout.rollout_id, "rolled_back")
    assert state_of(three_versions, "v1") == "retired"


def test_no_other_end_is_known(three_versions: Ledger) -> None:
    with pytest.raises(ValueError, match="expected promoted, rolled_back or ended"):
        three_versions.rollouts.finish(offer(three_versions).rollout_id, "paused")


def test_replicas_keep_their_ports(three_versions: Ledger, settings: Settings) -> None:
    book, first = three_versions.rollouts, settings.replica_port_first
    want = partial(book.want_replica, model="docs", environment={})
    assert want(version="v2", tag="a").port == first
    assert want(version="v3", tag="b").port == first + 1
    assert want(version="v2", tag="c").port == first
    assert book.drop_replica("docs", "v2")
    assert not book.drop_replica("docs", "v2")
    assert want(version="v4", tag="d").port == first
    assert [(found.version, found.tag) for found in book.wanted_replicas()] == [("v4", "d"), ("v3", "b")]


def test_what_serves_or_is_rolled_out_keeps_its_replica(three_versions: Ledger) -> None:
    three_versions.rollouts.want_replica(model="docs", version="v1", tag="docs:v1", environment={})
    rollout = offer(three_versions, "v2")
    assert not three_versions.rollouts.drop_replica("docs", "v1")
    assert not three_versions.rollouts.drop_replica("docs", "v2")
    three_versions.rollouts.finish(rollout.rollout_id, "rolled_back")
    assert three_versions.rollouts.drop_replica("docs", "v2")


def test_evidence_is_kept_once_for_each_look(three_versions: Ledger) -> None:
    rollout = offer(three_versions)
    three_versions.rollouts.enter_step(rollout.rollout_id, -1, 0, None, decision(rollout, "start"))
    state = three_versions.rollouts.get(rollout.rollout_id)
    assert state is not None
    hold = decision(rollout, "hold", "too little")
    won = concurrently([partial(three_versions.rollouts.weigh, state, {"n": n}, hold) for n in range(4)])
    assert sum(won) == 1
    kept = three_versions.rollouts.get(rollout.rollout_id)
    assert kept is not None
    assert (kept.revision, kept.step_index, kept.entered_at) == (state.revision + 1, 0, state.entered_at)
    assert [each.action for each in three_versions.rollouts.decisions(rollout.rollout_id)] == ["start", "hold"]


def test_evidence_of_a_step_that_is_over_is_not_kept(three_versions: Ledger) -> None:
    rollout = offer(three_versions)
    three_versions.rollouts.enter_step(rollout.rollout_id, -1, 0, None)
    stale = three_versions.rollouts.get(rollout.rollout_id)
    assert stale is not None
    three_versions.rollouts.enter_step(rollout.rollout_id, 0, 1, {"new": 1})
    assert not three_versions.rollouts.weigh(stale, {"old": 1})
    three_versions.rollouts.finish(rollout.rollout_id, "rolled_back")
    now = three_versions.rollouts.get(rollout.rollout_id)
    assert now is not None
    assert now.evidence == {"new": 1}
    assert not three_versions.rollouts.weigh(now, {"late": 1})


def test_no_verdict_on_evidence_that_is_not_the_newest(three_versions: Ledger) -> None:
    rollout = offer(three_versions)
    three_versions.rollouts.enter_step(rollout.rollout_id, -1, 0, None)
    slept = three_versions.rollouts.get(rollout.rollout_id)
    assert slept is not None
    assert three_versions.rollouts.weigh(slept, {"n": 1})
    verdict = decision(rollout, "roll_back")
    assert not three_versions.rollouts.finish(rollout.rollout_id, "rolled_back", verdict, revision=slept.revision)
    assert not three_versions.rollouts.enter_step(rollout.rollout_id, 0, 1, None, verdict, slept.revision)
    assert three_versions.rollouts.finish(rollout.rollout_id, "rolled_back", verdict, revision=slept.revision + 1)


def test_a_model_cools_down_after_a_rollback(three_versions: Ledger) -> None:
    rollout = offer(three_versions)
    three_versions.rollouts.finish(rollout.rollout_id, "rolled_back", decision(rollout, "roll_back"))
    begin = partial(three_versions.rollouts.offer, model="docs", challenger="v3", plan=PLAN, tag="t", environment={})
    with pytest.raises(CoolingDownError, match="cools down") as told:
        begin()
    assert PLAN.cool_down_s - 60 < told.value.left_s <= PLAN.cool_down_s
    assert begin(cooled=True).challenger == "v3"


@pytest.mark.parametrize("back_s", [0, 86_400])
def test_a_clock_that_was_set_back_makes_it_no_longer(three_versions: Ledger, back_s: int) -> None:
    rollout = offer(three_versions)
    three_versions.rollouts.finish(rollout.rollout_id, "rolled_back")
    later = datetime.now(UTC) + timedelta(seconds=PLAN.cool_down_s + back_s)
    with three_versions.engine.begin() as connection:
        connection.execute(update(rollouts).values(cool_until=later))
    with pytest.raises(CoolingDownError) as told:
        three_versions.rollouts.offer(model="docs", challenger="v3", plan=PLAN, tag="t", environment={})
    assert told.value.left_s <= PLAN.cool_down_s


def test_an_operators_own_rollback_cools_nothing_down(three_versions: Ledger) -> None:
    rollout = offer(three_versions)
    three_versions.rollouts.finish(rollout.rollout_id, "rolled_back", cool_down=False)
    three_versions.rollouts.offer(model="docs", challenger="v3", plan=PLAN, tag="t", environment={})


def test_only_the_step_that_it_is_in_is_approved(three_versions: Ledger) -> None:
    rollout = offer(three_versions)
    three_versions.rollouts.enter_step(rollout.rollout_id, -1, 0, None)
    assert not three_versions.rollouts.approve(rollout.rollout_id, 1)
    assert three_versions.rollouts.approve(rollout.rollout_id, 0)
    approved = three_versions.rollouts.get(rollout.rollout_id)
    assert approved is not None
    assert approved.approved_step == 0


@pytest.fixture
def promoted(three_versions: Ledger) -> tuple[Ledger, RolloutState]:
    """v2 has replaced v1 a moment ago."""
    three_versions.rollouts.want_replica(model="docs", version="v1", tag="docs:v1", environment={})
    rollout = offer(three_versions)
    three_versions.rollouts.finish(rollout.rollout_id, "promoted", decision(rollout, "promote"))
    found = three_versions.rollouts.get(rollout.rollout_id)
    assert found is not None
    return three_versions, found


def test_the_champion_before_is_kept_for_a_while(promoted: tuple[Ledger, RolloutState]) -> None:
    ledger, _ = promoted
    now = datetime.now(UTC)
    assert ledger.rollouts.retained(now).keys() == {("docs", "v1")}
    assert ledger.rollouts.retained(now + timedelta(seconds=PLAN.retain_champion_s + 60)) == {}
    assert ledger.versions.move("docs", "v1", "erased", expected=("retired",))
    assert ledger.rollouts.retained(now) == {}


def test_a_promotion_is_undone_once(promoted: tuple[Ledger, RolloutState]) -> None:
    ledger, rollout = promoted
    undo = partial(ledger.rollouts.undo, rollout, decision(rollout, "roll_back", "rude"))
    assert sum(concurrently([undo] * 4)) == 1
    assert (state_of(ledger, "v1"), state_of(ledger, "v2")) == ("champion", "rolled_back")
    undone = ledger.rollouts.get(rollout.rollout_id)
    assert undone is not None
    assert (undone.state, undone.retain_until) == ("undone", None)
    assert [each.reason for each in ledger.rollouts.decisions(rollout.rollout_id)][-1] == "rude"


def test_what_is_no_longer_kept_or_no_longer_serves_is_not_undone(promoted: tuple[Ledger, RolloutState]) -> None:
    ledger, rollout = promoted
    assert ledger.rollouts.drop_replica("docs", "v1")
    assert not ledger.rollouts.undo(rollout, decision(rollout, "roll_back"))
    ledger.rollouts.want_replica(model="docs", version="v1", tag="docs:v1", environment={})
    ledger.versions.crown("docs", "v3")
    assert not ledger.rollouts.undo(rollout, decision(rollout, "roll_back"))
    assert state_of(ledger, "v3") == "champion"


@pytest.mark.parametrize(
    "values", [{"paired": (0.5, 1.5)}, {"paired": (float("nan"),)}, {"champion": (1.0, float("inf"))}]
)
def test_what_no_test_could_take_in_is_not_entered(values: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValidationError):
        Observations(metric="refusal_rate", step_index=0, **values)
