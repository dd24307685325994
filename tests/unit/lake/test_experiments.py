"""Experiments: what a file may say, and what they are in the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from lake.errors import RecipeError
from lake.ledger import Ledger
from lake.ledger.experiments import version_of
from lake.ledger.rollout_state import RolloutUnderWayError
from lake.recipe import Experiment, Rollout, parse_experiment
from lake.records import ClusterStats, RolloutDecision
from tests.rollouts import BEGIN
from tests.servers import ROOT

BREVITY = parse_experiment("name: brevity\nmodel: docs\narms: {b: {system_prompt: Be brief.}}", "brevity.yaml")
NOTHING = ClusterStats(n_requests=0, n_errors=0, latency_mean_ms=0, latency_p95_ms=0)


@pytest.fixture
def served(ledger: Ledger) -> Ledger:
    """v1 is the champion, v2 is packaged, v3 is not."""
    for key in ("one", "two", "three"):
        ledger.versions.allocate(model="docs", training_key=key, reason="drop", dataset_ids=("d",), parent=None)
    ledger.versions.crown("docs", "v1")
    assert ledger.versions.move("docs", "v2", "ready", expected=("candidate", "failed"))
    return ledger


def end(ledger: Ledger, rollout_id: str) -> bool:
    state = ledger.rollouts.get(rollout_id)
    assert state is not None
    decision = RolloutDecision(
        rollout_id=rollout_id,
        model=state.model,
        challenger=state.challenger,
        champion=state.champion,
        action="end",
        from_stage="ab",
        to_stage="ended",
        reason="seen enough",
        champion_stats=NOTHING,
        challenger_stats=NOTHING,
        decided_at=BEGIN,
    )
    return ledger.rollouts.finish(rollout_id, "ended", decision)


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/experiment-*.yaml")), ids=lambda path: path.name)
def test_every_example_parses(path: Path) -> None:
    found = parse_experiment(path.read_text(), path.name)
    assert f"experiment-{found.name}" == path.stem
    assert found.arms.b.changes


def test_its_plan_is_one_step_that_is_judged_by_its_metrics() -> None:
    plan = BREVITY.plan()
    (step,) = plan.steps
    assert (step.stage, step.share, step.is_sticky) == ("ab", 0.5, False)
    assert {check.metric: (check.severity, check.allowed) for check in plan.checks} == {
        "error_rate": ("fail", 0.05),
        "latency_p50": ("warn", 1.0),
        "cpu_s": ("warn", 1.0),
    }
    assert BREVITY.bound_alpha == pytest.approx(0.05 / 6)


@pytest.mark.parametrize(
    ("more", "field", "allowed"),
    [
        ("arms: {a: {weight: 0.5}, b: {weight: 0.6}}", "arms", "weights that add up to 1: a 0.5 + b 0.6 is 1.1"),
        ("arms: {a: {weight: 0.5}, b: {weight: 0.4}}", "arms", "is 0.9"),
        ("arms: {a: {precision: fp32}}", "arms", "arm a as it serves now, without precision"),
        ("arms: {a: {sampling: {top_p: 0.9}}}", "arms", "without sampling"),
        ("arms: {b: {sampling: {temperature: 3}}}", "arms.b.sampling.temperature", "less than or equal to 2"),
        ("arms: {b: {promt: Hi}}", "arms.b.promt", "one of weight, version, system_prompt"),
        ('arms: {b: {system_prompt: "a\\0b"}}', "arms.b.system_prompt", "without NUL"),
        ("metrics: []", "(whole file)", "at least one metric"),
        ("metrics: [error_rate, error_rate]", "(whole file)", "twice: error_rate"),
        ("metrics: [agreement]", "metrics.0", "a metric of live traffic"),
        ("metrics: [latency]", "metrics.0", "a metric: error_rate"),
        ("metrics: [business:sales]", "metrics.0", "a url for business metrics"),
        ("metrics: [{metric: latency_p50, alike_within: 0.9}]", "metrics.0", "a factor above 1"),
        ("metrics: [{metric: error_rate, stop_when_worse_by: 7}]", "metrics.0", "a number from 0 to 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(more: str, field: str, allowed: str) -> None:
    with pytest.raises(RecipeError) as refused:
        parse_experiment(f"name: brevity\nmodel: docs\n{more}", "brevity.yaml")
    assert refused.value.where == f"brevity.yaml, field {field}"
    assert allowed in refused.value.expected


def test_an_experiment_is_a_rollout_of_a_variant_and_touches_no_version(served: Ledger) -> None:
    before = served.versions.all("docs")
    begun = served.experiments.offer(BREVITY, version="v1", tag="docs:v1", environment={"A": "b"})
    assert served.rollouts.get(begun.rollout_id) == begun
    assert (begun.rollout_id, begun.challenger, begun.champion) == ("docs.brevity-1", "v1-b1", "v1")
    assert (begun.kind, begun.experiment, version_of(begun)) == ("experiment", BREVITY, "v1")
    (replica,) = served.rollouts.wanted_replicas()
    assert (replica.version, replica.tag, replica.environment) == (
        "v1-b1", "docs:v1", {"A": "b", "TIDEMILL_VARIANT": "v1-b1"},
    )  # fmt: skip
    assert not served.rollouts.drop_replica("docs", "v1-b1")
    assert end(served, begun.rollout_id)
    assert served.versions.all("docs") == before
    assert served.rollouts.drop_replica("docs", "v1-b1")
    found = served.experiments.newest("brevity")
    assert found is not None
    assert (found.state, found.cool_until, found.retain_until) == ("ended", None, None)


def test_one_rollout_or_experiment_of_a_model_at_a_time(served: Ledger) -> None:
    first = served.experiments.offer(BREVITY, version="v1", tag="docs:v1", environment={})
    with pytest.raises(RolloutUnderWayError):
        served.experiments.offer(BREVITY, version="v2", tag="docs:v2", environment={})
    with pytest.raises(RolloutUnderWayError):
        served.rollouts.offer(model="docs", challenger="v2", plan=Rollout(), tag="docs:v2", environment={})
    end(served, first.rollout_id)
    second = served.experiments.offer(BREVITY, version="v2", tag="docs:v2", environment={})
    assert (second.rollout_id, second.challenger) == ("docs.brevity-2", "v2-b2")
    end(served, second.rollout_id)
    released = served.rollouts.offer(model="docs", challenger="v2", plan=Rollout(), tag="docs:v2", environment={})
    assert (released.kind, released.experiment) == ("release", None)
    with pytest.raises(RolloutUnderWayError):
        served.experiments.offer(BREVITY, version="v1", tag="docs:v1", environment={})
    assert [state.rollout_id for state in served.experiments.all("docs")] == ["docs.brevity-1", "docs.brevity-2"]


@pytest.mark.parametrize(("version", "got"), [("v3", "is candidate"), ("v9", "is unknown")])
def test_a_version_that_is_not_packaged_is_refused(served: Ledger, version: str, got: str) -> None:
    with pytest.raises(ValueError, match=got):
        served.experiments.offer(BREVITY, version=version, tag="t", environment={})
    assert served.rollouts.running() == []
    assert served.rollouts.wanted_replicas() == []


def test_arm_a_is_what_serves_now(served: Ledger) -> None:
    other = Experiment.model_validate({"name": "other", "model": "docs", "arms": {"a": {"version": "v2"}}})
    with pytest.raises(ValueError, match="v1 of docs serves, expected v2, as arm a"):
        served.experiments.offer(other, version="v1", tag="docs:v1", environment={})
    with pytest.raises(ValueError, match="no version of other serves"):
        served.experiments.offer(BREVITY.model_copy(update={"model": "other"}), version="v1", tag="t", environment={})
