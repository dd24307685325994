"""The rule of experiments, what is said of their arms, and what operators may order."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bentos.evidence import Evidence
from bentos.experiment import decide, difference, more_requests, outcome
from bentos.experiment_orders import begin_experiment, end_experiment, environment_of
from bentos.moves import Move, next_move
from bentos.orders import request_rollback
from bentos.serving_config import ServingSettings
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.rollout_state import RolloutState
from lake.recipe import Compared, Experiment, Rollout
from lake.records import CheckResult, RolloutDecision
from tests.rollouts import BEGIN, begun, looked, rollout_state, snapshot


def experiment(*metrics: str | dict[str, Any], **more: Any) -> Experiment:
    told = {"name": "brevity", "model": "docs", "metrics": metrics or ("error_rate",), "sticky": "none", **more}
    return Experiment.model_validate(told)


def state_of(wanted: Experiment, step_index: int = 0, **changes: Any) -> RolloutState:
    return rollout_state(step_index, wanted.plan(), kind="experiment", experiment=wanted, **changes)


def weighed(wanted: Experiment, *errors: tuple[int, int], n: int = 100, every_s: float = 1) -> Evidence:
    """The evidence after one look for each pair of errors, of a's and b's `n` requests in each."""
    evidence = begun(wanted.plan())
    a = b = 0
    for number, (more_a, more_b) in enumerate(errors, start=1):
        a, b = a + more_a, b + more_b
        now = snapshot(number * every_s, v1=(number * n - a, a), v2=(number * n - b, b))
        evidence = looked(evidence, wanted.plan(), now)
    return evidence


def decided(wanted: Experiment, evidence: Evidence) -> RolloutDecision:
    return decide(state_of(wanted), evidence, decided_at=BEGIN)


def result(metric: str, effect: float | None, lower: float | None, upper: float | None, n: int = 100) -> CheckResult:
    return CheckResult(
        metric=metric, severity="warn", verdict="undecided", n_champion=n, n_challenger=n, champion=None,
        challenger=None, effect=effect, lower=lower, upper=upper, margin=0, alpha=0.01, p_value=1, reason="",
    )  # fmt: skip


def test_it_ends_once_every_metric_is_decided_and_says_who_is_better() -> None:
    wanted = experiment()
    found = decided(wanted, weighed(wanted, *[(0, 10)] * 5))
    assert (found.action, found.from_stage, found.to_stage) == ("end", "ab", "ended")
    assert found.reason.startswith("every metric is decided: a is better in error_rate (b - a +10 points")
    better = decided(wanted, weighed(wanted, *[(10, 0)] * 5))
    assert better.action == "end"
    assert "b is better in error_rate" in better.reason


def test_a_better_arm_b_is_promoted_by_nothing() -> None:
    wanted = experiment()
    for errors in ([(30, 0)] * 30, [(0, 0)] * 30, [(0, 2)] * 30):
        for n_looks in range(1, 31):
            assert decided(wanted, weighed(wanted, *errors[:n_looks])).action in ("hold", "end")


def test_until_both_arms_have_answered_enough_it_holds() -> None:
    wanted = experiment(min_requests=1_000)
    found = decided(wanted, weighed(wanted, *[(0, 10)] * 5))
    assert (found.action, found.reason) == ("hold", "waiting for requests: 500 of 1000 answered by either arm")


def test_undecided_metrics_keep_it_open_until_its_time_is_over() -> None:
    wanted = experiment(max_duration_s=60)
    found = decided(wanted, weighed(wanted, *[(1, 1)] * 5))
    assert (found.action, found.reason) == ("hold", "undecided: error_rate")
    late = decided(wanted, weighed(wanted, *[(1, 1)] * 5, every_s=12))
    assert late.action == "end"
    assert late.reason.startswith("its time is over (60 s): error_rate is undecided (b - a +0 points")


def test_arms_that_differ_by_nothing_that_matters_are_alike() -> None:
    wanted = experiment({"metric": "error_rate", "alike_within": 0.05})
    found = decided(wanted, weighed(wanted, *[(1, 1)] * 30))
    assert found.action == "end"
    assert "a and b are alike in error_rate" in found.reason


def test_a_burst_of_errors_ends_it_at_once() -> None:
    wanted = experiment(min_requests=1_000_000)
    found = decided(wanted, weighed(wanted, (0, 10), n=10))
    assert (found.action, found.reason) == ("end", "arm b failed 10 of its last 10 requests, the champion 0 of 10")


def test_a_metric_worse_than_allowed_ends_it_before_enough_was_asked() -> None:
    wanted = experiment({"metric": "error_rate", "stop_when_worse_by": 0.05}, min_requests=1_000_000)
    found = decided(wanted, weighed(wanted, *[(0, 20)] * 5))
    assert found.action == "end"
    assert found.reason.startswith("arm b is worse by more than allowed: error_rate")
    small = decided(wanted, weighed(wanted, *[(0, 3)] * 5))
    assert small.action == "hold"


def test_a_broken_split_concludes_nothing() -> None:
    wanted = experiment(max_duration_s=60)
    uneven = looked(begun(wanted.plan()), wanted.plan(), snapshot(1, v1=(1_000, 0), v2=(400, 100)))
    found = decided(wanted, uneven)
    assert found.action == "hold"
    assert "not split as planned" in found.reason
    over = looked(begun(wanted.plan()), wanted.plan(), snapshot(61, v1=(1_000, 0), v2=(400, 100)))
    assert decided(wanted, over).action == "end"
    assert "nothing is concluded" in decided(wanted, over).reason


@pytest.mark.parametrize(
    ("metric", "better", "bounds", "told"),
    [
        ("error_rate", None, (0.02, 0.01, 0.03), (0.02, 0.01, 0.03)),
        ("feedback", None, (0.2, 0.1, 0.3), (-0.2, -0.3, -0.1)),
        ("latency_p50", None, (2.0, 1.5, None), (2.0, 1.5, None)),
        ("business:sales", "higher", (2.0, 1.25, 4.0), (0.5, 0.25, 0.8)),
        ("business:sales", "higher", (2.0, 1.25, None), (0.5, None, 0.8)),
        ("business:sales", "lower", (2.0, 1.25, 4.0), (2.0, 1.25, 4.0)),
    ],
)
def test_a_difference_is_told_as_b_against_a(metric: str, better: Any, bounds: Any, told: Any) -> None:
    url = "http://localhost/" if metric.startswith("business") else None
    compared = Compared(metric=metric, better=better, url=url)
    assert difference(compared, result(metric, *bounds)) == pytest.approx(told)
    assert outcome(compared, result(metric, *bounds)) == "a"  # all of these are worse in b


def test_an_outcome_needs_samples_and_an_interval_beside_no_difference() -> None:
    compared = Compared(metric="latency_p50", alike_within=1.25)
    assert outcome(compared, result("latency_p50", 0.5, 0.4, 0.9)) == "b"
    assert outcome(compared, result("latency_p50", 0.5, 0.4, 0.9, n=9)) is None
    assert outcome(compared, result("latency_p50", 1.0, 0.9, 1.1)) == "alike"
    assert outcome(compared, result("latency_p50", 1.0, 0.7, 1.1)) is None
    assert outcome(compared, result("latency_p50", 1.0, 0.9, None)) is None
    assert outcome(compared, result("latency_p50", None, None, None)) is None


def test_how_many_more_requests_it_roughly_takes() -> None:
    rate = Compared(metric="error_rate")
    # The interval reaches twice as far as the difference: four times the requests.
    assert more_requests(rate, result("error_rate", 0.01, -0.01, 0.03), 1_000) == 3_000
    assert more_requests(rate, result("error_rate", -0.01, -0.03, 0.01), 1_000) == 3_000
    assert more_requests(rate, result("error_rate", 0.02, 0.01, 0.03), 1_000) == 0
    assert more_requests(rate, result("error_rate", 0.0, -0.01, 0.01), 1_000) is None
    assert more_requests(rate, result("error_rate", 0.001, -0.2, 0.2), 1_000) is None
    ratio = Compared(metric="latency_p50")
    assert more_requests(ratio, result("latency_p50", 2.0, 0.5, 8.0), 1_000) == 3_000
    assert more_requests(ratio, result("latency_p50", 2.0, 0.0, None), 1_000) is None
    assert more_requests(ratio, result("latency_p50", 0.5, 0.1, None), 1_000) is None


@pytest.mark.parametrize("step_index", [-1, 0])
def test_without_a_ready_endpoint_it_ends_and_is_not_rolled_back(step_index: int) -> None:
    wanted = experiment()
    kept = begun(wanted.plan()).model_dump(mode="json")
    state = state_of(wanted, step_index, evidence=kept if step_index >= 0 else None)
    found = moved(state, health=("gone", "its process died"))
    assert found.kind == "finish"
    assert found.decision is not None
    assert (found.decision.action, found.decision.to_stage) == ("end", "ended")
    assert "its process died" in found.decision.reason


def test_the_controllers_next_move_is_by_the_experiments_rule() -> None:
    wanted = experiment()
    state = state_of(wanted, evidence=begun(wanted.plan()).model_dump(mode="json"))
    found = moved(state, now_stats=snapshot(10, v1=(500, 0), v2=(450, 50)))
    assert (found.kind, found.decision and found.decision.action) == ("finish", "end")
    held = moved(state, now_stats=snapshot(10, v1=(500, 0), v2=(500, 0)))
    assert (held.kind, held.decision and held.decision.action) == ("weigh", "hold")


def moved(state: RolloutState, **changes: Any) -> Move:
    told = {"health": ("ready", "ready"), "now_stats": None, "seen": (), "recorded": (), **changes}
    return next_move(state, now=BEGIN + timedelta(seconds=10), **told)


def test_an_arm_is_read_back_by_the_replica_as_it_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = "  Costs $HOME, 100%: „kurz“\nand 'quoted' \"twice\"  "
    wanted = experiment(
        arms={"b": {"system_prompt": prompt, "sampling": {"temperature": 0.2, "top_p": 0.9, "max_tokens": 123456789}}}
    )
    told = environment_of(wanted.arms.b)
    assert "$" not in told["TIDEMILL_SYSTEM_PROMPT"]
    for name, value in told.items():
        monkeypatch.setenv(name, value.strip())  # as the supervisor does
    serving = ServingSettings()
    assert (serving.system_prompt, serving.temperature, serving.top_p, serving.max_tokens) == (
        prompt, 0.2, 0.9, 123456789,
    )  # fmt: skip
    assert environment_of(wanted.arms.a) == {}


@pytest.fixture
def served(ledger: Ledger) -> Ledger:
    """v1 is the champion, v2 is packaged."""
    for key in ("one", "two"):
        ledger.versions.allocate(model="docs", training_key=key, reason="drop", dataset_ids=("d",), parent=None)
    ledger.versions.crown("docs", "v1")
    assert ledger.versions.move("docs", "v2", "ready", expected=("candidate", "failed"))
    return ledger


def test_it_is_begun_and_ended_by_its_name(served: Ledger) -> None:
    state = begin_experiment(served, experiment(), version="v1", tag="docs:v1")
    assert end_experiment(served, "brevity", "seen enough").rollout_id == state.rollout_id
    ended = served.rollouts.get(state.rollout_id)
    assert ended is not None
    assert ended.state == "ended"
    assert served.rollouts.decisions(state.rollout_id)[-1].reason == "seen enough"
    with pytest.raises(TidemillError, match="which has ended"):
        end_experiment(served, "brevity", "again")
    with pytest.raises(TidemillError, match="none by that name"):
        end_experiment(served, "other", "again")


def test_beside_a_rollout_it_is_refused_with_what_to_do(served: Ledger) -> None:
    served.rollouts.offer(model="docs", challenger="v2", plan=Rollout(), tag="docs:v2", environment={})
    with pytest.raises(
        TidemillError, match="rollout docs-v2-1; wait for its end, or end it: 'tidemill rollout back docs'"
    ):
        begin_experiment(served, experiment(), version="v1", tag="docs:v1")
    request_rollback(served, "docs", "make room")
    begin_experiment(served, experiment(), version="v1", tag="docs:v1")
    with pytest.raises(TidemillError, match=r"experiment docs\.brevity-1; .* 'tidemill experiment stop brevity'"):
        begin_experiment(served, experiment(), version="v1", tag="docs:v1")


def test_a_rollback_that_is_asked_for_ends_an_experiment(served: Ledger) -> None:
    state = begin_experiment(served, experiment(), version="v1", tag="docs:v1")
    request_rollback(served, "docs", "make room")
    ended = served.rollouts.get(state.rollout_id)
    assert ended is not None
    assert (ended.state, ended.cool_until) == ("ended", None)


def test_a_version_that_cannot_serve_is_refused(served: Ledger) -> None:
    with pytest.raises(TidemillError, match="v9 is unknown"):
        begin_experiment(served, experiment(), version="v9", tag="docs:v9")
