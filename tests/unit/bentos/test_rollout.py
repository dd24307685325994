"""The rule of a rollout. How often it errs is measured by `benchmarks/rollout.py`, and by the tests' own in sequential/."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.evidence import Evidence
from bentos.rollout import decide
from lake.ledger.rollout_state import Observations
from lake.recipe import Rollout, RolloutCheck, RolloutStep
from lake.records import RolloutDecision
from tests.rollouts import BEGIN, begun, looked, rollout_state, snapshot

CHECKS = (RolloutCheck(metric="error_rate", margin=0.02), RolloutCheck(metric="latency_p50", margin=2.0))
PLAN = Rollout(
    steps=(
        RolloutStep(stage="shadow", share=1.0, min_requests=30, max_duration_s=600),
        RolloutStep(stage="ab", share=0.5, min_requests=30, max_duration_s=600, sticky="none"),
        RolloutStep(stage="canary", share=0.75, min_requests=30, max_duration_s=600),
    ),
    checks=CHECKS,
)
SHADOW, AB, CANARY = 0, 1, 2
counts = st.integers(0, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


@dataclass(frozen=True)
class Seen:
    """What both versions did within a step: requests, errors, and milliseconds."""

    champion: tuple[int, int] = (100, 0)
    challenger: tuple[int, int] = (100, 0)
    champion_ms: float = 100.0
    challenger_ms: float = 100.0
    elapsed_s: float = 10


def evidence(seen: Seen, plan: Rollout = PLAN, step_index: int = SHADOW) -> Evidence:
    """The evidence after four looks, as what is compared is chosen by the ones before."""
    found = begun(plan, step_index)
    for part in (0.25, 0.5, 0.75, 1.0):
        now = snapshot(seen.elapsed_s * part)
        versions = [
            snapshot(0, ms, **{name: (round(n * part) - round(k * part), round(k * part))}).versions[0]
            for name, (n, k), ms in (
                ("v1", seen.champion, seen.champion_ms),
                ("v2", seen.challenger, seen.challenger_ms),
            )
        ]
        found = looked(found, plan, now.model_copy(update={"versions": tuple(versions)}), step_index)
    return found


def verdict(seen: Seen, step_index: int = SHADOW, plan: Rollout = PLAN, **changes: int) -> RolloutDecision:
    state = rollout_state(step_index, plan, **changes)
    return decide(state, evidence(seen, plan, step_index), decided_at=BEGIN + timedelta(seconds=seen.elapsed_s))


def test_an_equal_challenger_is_promoted_to_the_next_stage() -> None:
    for step_index, following in enumerate(("ab", "canary", "full")):
        seen = Seen(challenger=(300, 0)) if step_index == CANARY else Seen()
        decision = verdict(seen, step_index)
        assert (decision.action, decision.to_stage) == ("promote", following), decision.reason


def test_a_decision_carries_its_evidence() -> None:
    decision = verdict(Seen(), AB)
    assert [check.metric for check in decision.checks] == ["error_rate", "latency_p50"]
    error_rate = decision.checks[0]
    assert (error_rate.n_champion, error_rate.n_challenger, error_rate.effect) == (100, 100, 0.0)
    assert error_rate.lower is not None
    assert error_rate.upper is not None
    assert error_rate.lower <= 0 <= error_rate.upper
    assert decision.split is not None
    assert (decision.split.n_champion, decision.split.n_challenger, decision.split.broken) == (100, 100, False)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (Seen(challenger=(29, 0)), "29 of 30"),
        (Seen(champion=(4, 0)), "4 of 5"),
        (Seen(champion=(0, 0), challenger=(0, 0)), "0 of 30"),
        (Seen(champion=(7, 0)), "error_rate"),  # less than the check's min_samples
    ],
)
def test_too_little_data_holds(seen: Seen, told: str) -> None:
    decision = verdict(seen)
    assert (decision.action, decision.to_stage) == ("hold", "shadow")
    assert told in decision.reason


def test_no_data_never_promotes_whatever_the_plan_does_at_the_end() -> None:
    holding = PLAN.model_copy(update={"on_inconclusive": "hold"})
    nothing = Seen(champion=(0, 0), challenger=(0, 0), elapsed_s=700)
    assert verdict(nothing).action == "roll_back"
    assert verdict(nothing, plan=holding).action == "hold"
    assert verdict(replace(nothing, elapsed_s=590)).action == "hold"


def test_a_step_lasts_as_long_as_the_plan_has_it() -> None:
    steps = (PLAN.steps[0].model_copy(update={"min_duration_s": 60}), *PLAN.steps[1:])
    plan = PLAN.model_copy(update={"steps": steps})
    assert "10 of 60 s" in verdict(Seen(), plan=plan).reason
    assert verdict(Seen(elapsed_s=60), plan=plan).action == "promote"


def test_a_burst_of_errors_ends_it_at_once() -> None:
    decision = verdict(Seen(champion=(40, 0), challenger=(10, 8)))
    assert (decision.action, decision.to_stage) == ("roll_back", "rolled_back")
    assert "8 of its last 10" in decision.reason


def test_errors_that_both_have_are_not_the_challengers() -> None:
    assert verdict(Seen(champion=(300, 240), challenger=(300, 240))).action == "promote"


def test_errors_beyond_chance_and_margin_roll_back() -> None:
    decision = verdict(Seen(champion=(1_000, 10), challenger=(1_000, 100)))
    assert decision.action == "roll_back"
    assert "error_rate" in decision.reason
    assert decision.checks[0].verdict == "worse"
    assert decision.checks[0].p_value < decision.checks[0].alpha


def test_more_errors_that_may_be_chance_hold_until_the_time_is_over() -> None:
    seen = Seen(champion=(100, 0), challenger=(100, 9))
    decision = verdict(seen)
    assert decision.action == "hold"
    assert "looks worse, which is not certain yet" in decision.reason
    assert verdict(replace(seen, elapsed_s=600)).action == "roll_back"


def test_a_check_that_only_warns_is_told_and_lets_go_on() -> None:
    warning = RolloutCheck(metric="error_rate", margin=0.02, severity="warn")
    plan = PLAN.model_copy(update={"checks": (warning, CHECKS[1])})
    decision = verdict(Seen(champion=(1_000, 10), challenger=(1_000, 100)), plan=plan)
    assert decision.action == "promote"
    assert "warning: error_rate" in decision.reason


def test_a_check_that_wants_proof_waits_for_it() -> None:
    proving = RolloutCheck(metric="error_rate", margin=0.02, proof=True)
    plan = PLAN.model_copy(update={"checks": (proving, CHECKS[1])})
    assert "waiting for the proof" in verdict(Seen(), plan=plan).reason
    assert verdict(Seen(champion=(5_000, 50), challenger=(5_000, 50)), plan=plan).action == "promote"


def test_a_slow_challenger_is_rolled_back_where_clients_wait_for_it() -> None:
    slow = Seen(champion=(400, 0), challenger=(400, 0), challenger_ms=500)
    decision = verdict(slow, AB)
    assert decision.action == "roll_back"
    assert "latency_p50" in decision.reason
    assert verdict(slow, SHADOW).action == "promote"  # nobody waits for a shadow
    assert verdict(replace(slow, challenger_ms=140), AB).action == "promote"


def test_no_verdict_rests_on_a_broken_split() -> None:
    failing = Seen(champion=(2_000, 0), challenger=(800, 300))
    decision = verdict(failing, AB)
    assert decision.action == "hold"
    assert "not split as planned" in decision.reason
    assert decision.split is not None
    assert decision.split.broken
    assert verdict(Seen(champion=(2_000, 0), challenger=(800, 0)), AB).action == "hold"
    assert verdict(replace(failing, elapsed_s=600), AB).action == "roll_back"
    # What a dead or a mad challenger does needs no split to be seen.
    assert verdict(Seen(champion=(2_000, 0), challenger=(800, 700)), AB).action == "roll_back"


def test_a_sticky_step_counts_users() -> None:
    steps = (PLAN.steps[0], PLAN.steps[1].model_copy(update={"sticky": "user"}), PLAN.steps[2])
    plan = PLAN.model_copy(update={"steps": steps})
    one_user_asks_all = begun(plan, AB)
    users = Observations(metric="split", step_index=AB, champion=(1.0,) * 5, challenger=(1.0,) * 4)
    now = snapshot(10, v1=(2_000, 0), v2=(100, 0))
    late = users.model_copy(update={"step_index": SHADOW, "champion": (1.0,) * 90})  # of a step that is over
    found = looked(one_user_asks_all, plan, now, AB, seen=[(6, late), (7, users)])
    assert found.split is not None
    assert (found.split.n_champion, found.split.n_challenger) == (5, 4)
    assert found.observed == 7


def test_a_pause_waits_for_approval_for_as_long_as_people_take() -> None:
    steps = (PLAN.steps[0].model_copy(update={"pause": "approval"}), *PLAN.steps[1:])
    plan = PLAN.model_copy(update={"steps": steps})
    asked = verdict(Seen(elapsed_s=3_000), plan=plan)
    assert (asked.action, "tidemill rollout approve docs" in asked.reason) == ("hold", True)
    assert verdict(Seen(), plan=plan, approved_step=0).action == "promote"
    # An approval is no verdict: what is missing, is missing.
    assert verdict(Seen(challenger=(3, 0)), plan=plan, approved_step=0).action == "hold"


@pytest.mark.parametrize("step_index", [-1])
def test_a_state_outside_its_plan_is_refused(step_index: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 2"):
        decide(rollout_state(step_index, PLAN), Evidence(), decided_at=BEGIN)


def test_answers_that_others_have_compared_count() -> None:
    plan = PLAN.model_copy(update={"checks": (*CHECKS, RolloutCheck(metric="refusal_rate", margin=0.1))})
    now = snapshot(10, v1=(100, 0), v2=(100, 0))
    nothing = looked(begun(plan), plan, now)
    assert "refusal_rate" in decide(rollout_state(0, plan), nothing, decided_at=BEGIN).reason
    for differences, action in (((0.0,) * 60, "promote"), ((1.0,) * 60, "roll_back")):
        seen = [(1, Observations(metric="refusal_rate", step_index=0, paired=differences))]
        found = looked(begun(plan), plan, now, seen=seen)
        assert decide(rollout_state(0, plan), found, decided_at=BEGIN).action == action


def test_what_the_shadow_has_shown_counts_for_the_steps_after_it() -> None:
    shown = verdict(Seen(champion=(300, 0), challenger=(300, 15)))
    assert shown.action == "hold"
    from bentos.evidence import entered

    later = entered(evidence(Seen(champion=(300, 0), challenger=(300, 15))), PLAN.steps[AB])
    assert later.test(CHECKS[0]).n_challenger == 300
    assert (later.challenger.n_requests, later.elapsed_s, later.snapshot) == (0, 0.0, None)


@settings(max_examples=40, deadline=None)
@given(counts, counts, st.sampled_from([SHADOW, AB, CANARY]), st.floats(1, 1_200))
def test_promotion_always_has_its_evidence(
    champion: tuple[int, int], challenger: tuple[int, int], step_index: int, elapsed_s: float
) -> None:
    decision = verdict(Seen(champion, challenger, elapsed_s=elapsed_s), step_index)
    if decision.action == "promote":
        assert challenger[0] >= 30
        assert champion[0] >= 5
        assert all(check.verdict in ("fine", "undecided") for check in decision.checks if check.severity == "fail")
        assert decision.split is None or not decision.split.broken
    if decision.action == "hold":
        assert elapsed_s < 600


@pytest.mark.parametrize(
    ("champion", "challenger", "action"),
    [
        ((200, 2), (10, 5), "roll_back"),  # of a champion that hardly fails
        ((200, 40), (10, 5), "hold"),  # what one of five does to both now and then
        ((200, 40), (40, 38), "roll_back"),
    ],
)
def test_a_burst_is_more_than_what_the_champion_does_now_and_then(
    champion: tuple[int, int], challenger: tuple[int, int], action: str
) -> None:
    before = looked(begun(PLAN), PLAN, snapshot(10, v1=(champion[0] - champion[1], champion[1]), v2=(0, 0)))
    n, k = challenger
    now = snapshot(20, v1=(champion[0] - champion[1] + 40, champion[1] + 1), v2=(n - k, k))
    found = looked(before, PLAN, now)
    decision = decide(rollout_state(SHADOW, PLAN), found, decided_at=BEGIN)
    assert decision.action == action
    assert ("of its last" in decision.reason) == (action == "roll_back")


def test_what_both_suffer_from_at_one_time_is_no_burst_of_the_challenger() -> None:
    """Half a minute without a database, say: the champion hardly fails otherwise."""
    before = looked(begun(PLAN), PLAN, snapshot(10, v1=(5_000, 5), v2=(5_000, 5)))
    for k_champion, k_challenger in ((5, 7), (4, 8), (6, 6)):
        now = snapshot(14, v1=(5_010 - k_champion, 5 + k_champion), v2=(5_010 - k_challenger, 5 + k_challenger))
        decision = decide(rollout_state(SHADOW, PLAN), looked(before, PLAN, now), decided_at=BEGIN)
        assert "of its last" not in decision.reason
    alone = looked(before, PLAN, snapshot(14, v1=(5_000, 5), v2=(5_000, 15)))
    assert "of its last" not in decide(rollout_state(SHADOW, PLAN), alone, decided_at=BEGIN).reason


def test_a_sticky_step_waits_until_its_users_are_counted() -> None:
    steps = (PLAN.steps[0], PLAN.steps[1].model_copy(update={"sticky": "user"}), PLAN.steps[2])
    decision = verdict(Seen(), AB, PLAN.model_copy(update={"steps": steps}))
    assert decision.action == "hold"
    assert "waiting for users: 0 of 10" in decision.reason


def test_while_a_person_is_waited_for_a_suspicion_holds() -> None:
    steps = (PLAN.steps[0].model_copy(update={"pause": "approval"}), *PLAN.steps[1:])
    plan = PLAN.model_copy(update={"steps": steps})
    suspicious = Seen(champion=(100, 0), challenger=(100, 9), elapsed_s=900)
    assert verdict(suspicious).action == "roll_back"
    assert verdict(suspicious, plan=plan).action == "hold"


@pytest.mark.parametrize("kept", [{"of": "a later version"}, {"observed": 7, "tests": 3}])
def test_evidence_that_cannot_be_read_is_lost_and_the_rollout_is_not(kept: dict[str, object]) -> None:
    from bentos.moves import evidence_of

    found = evidence_of(rollout_state(AB, PLAN, evidence=kept))
    assert found.snapshot is None
    assert found.observed == kept.get("observed", 0)
    assert found.split is not None
    strange = begun(PLAN).model_copy(update={"tests": {"error_rate": {"of": "a later version"}}})
    assert looked(strange, PLAN, snapshot(1, v1=(5, 0), v2=(5, 0))).test(CHECKS[0]).n_challenger == 5
