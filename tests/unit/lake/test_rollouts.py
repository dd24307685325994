"""Rollouts in the ledger: one at a time for a model, steps by compare-and-set, what follows from the end of one."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest

from lake.ledger import Ledger
from lake.ledger.rollouts import RolloutState, RolloutUnderWayError
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
        model="docs", challenger=challenger, plan=PLAN, tag=f"docs:{challenger}", environment=environment
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
    assert (entered.step_index, entered.baseline) == (0, {"n": 1})
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
    with pytest.raises(ValueError, match="expected promoted or rolled_back"):
        three_versions.rollouts.finish(offer(three_versions).rollout_id, "paused")


def test_replicas_keep_their_ports(three_versions: Ledger, settings: Settings) -> None:
    rollouts, first = three_versions.rollouts, settings.replica_port_first
    want = partial(rollouts.want_replica, model="docs", environment={})
    assert want(version="v2", tag="a").port == first
    assert want(version="v3", tag="b").port == first + 1
    assert want(version="v2", tag="c").port == first
    assert rollouts.drop_replica("docs", "v2")
    assert not rollouts.drop_replica("docs", "v2")
    assert want(version="v4", tag="d").port == first
    assert [(found.version, found.tag) for found in rollouts.wanted_replicas()] == [("v4", "d"), ("v3", "b")]


def test_what_serves_or_is_rolled_out_keeps_its_replica(three_versions: Ledger) -> None:
    three_versions.rollouts.want_replica(model="docs", version="v1", tag="docs:v1", environment={})
    rollout = offer(three_versions, "v2")
    assert not three_versions.rollouts.drop_replica("docs", "v1")
    assert not three_versions.rollouts.drop_replica("docs", "v2")
    three_versions.rollouts.finish(rollout.rollout_id, "rolled_back")
    assert three_versions.rollouts.drop_replica("docs", "v2")
