"""Experiments as flows and the command line have them: what is refused at the start, what the report says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from bentos.evidence import Evidence
from bentos.experiment import decide
from bentos.experiment_orders import begin_experiment
from flows.context import Context
from flows.experiment_report import (
    ExperimentReports,
    arm_in_words,
    conclusions,
    keep_experiment_report,
    lines,
    named,
    report_markdown,
)
from flows.experiments import start
from flows.lineage import lineage
from flows.rollout_view import RolloutView, read_view
from lake.bucket import Bucket
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.rollout_state import RolloutState
from lake.recipe import Experiment
from lake.records import Bento
from lake.settings import Settings
from tests.rollouts import begun, looked, snapshot
from tests.stages import commit_record

ARM = {"system_prompt": "Be | brief.", "sampling": {"temperature": 0.2}}


@pytest.fixture
def context(settings: Settings, bucket: Bucket, ledger: Ledger) -> Context:
    """v1 of docs is the champion, packaged so that it may serve as a variant; v2 was never packaged."""
    bucket.put("recipes/docs.yaml", b"name: docs\nmonitoring: {log_share: 0}")
    for key in ("one", "two"):
        ledger.versions.allocate(model="docs", training_key=key, reason="drop", dataset_ids=(), parent=None)
    ledger.versions.crown("docs", "v1")
    bento = Bento(
        bento_id="b", tag="docs:v1", model_tag="docs:v1", model="docs", version="v1", export_id="e",
        labels={"variants": "yes", "variant": "int8"}, archive_key="none",
    )  # fmt: skip
    commit_record(ledger, "package", "docs", "package-1", bento)
    return Context(settings)


def experiment(*metrics: str | dict[str, Any], **more: Any) -> Experiment:
    told = {"name": "brevity", "model": "docs", "metrics": metrics, "sticky": "none", "arms": {"b": ARM}, **more}
    return Experiment.model_validate(told)


def seen(context: Context, wanted: Experiment, errors: Sequence[tuple[int, int]], n: int = 100) -> RolloutView:
    """The experiment after looks with so many errors of a's and b's `n` requests in each."""
    state = begin_experiment(context.ledger, wanted, version="v1", tag="docs:v1")
    rollouts = context.ledger.rollouts
    evidence: Evidence = begun(wanted.plan())
    assert rollouts.enter_step(state.rollout_id, -1, 0, evidence.model_dump(mode="json"))
    a = b = 0
    for number, (more_a, more_b) in enumerate(errors, start=1):
        a, b = a + more_a, b + more_b
        evidence = looked(evidence, wanted.plan(), snapshot(number, v1=(number * n - a, a), v2=(number * n - b, b)))
    now = rollouts.get(state.rollout_id)
    assert now is not None
    decision = decide(now, evidence, decided_at=datetime.now(UTC))
    if decision.action == "end":
        assert rollouts.finish(state.rollout_id, "ended", decision)
    else:
        assert rollouts.weigh(now, evidence.model_dump(mode="json"), decision)
    return read_view(context.ledger, state.rollout_id)


def running(context: Context) -> list[RolloutState]:
    return context.ledger.rollouts.running()


def test_what_needs_no_packaging_begins_at_once(context: Context) -> None:
    state = start(context, experiment("error_rate"))
    (replica,) = context.ledger.rollouts.wanted_replicas()
    assert (state.challenger, replica.tag) == ("v1-b1", "docs:v1")
    assert arm_in_words(state) == "v1 as v1-b1; temperature 0.2; system prompt “Be | brief.”"
    assert named(context.ledger, "brevity") == state


def test_the_precision_that_serves_needs_no_second_bento(context: Context) -> None:
    start(context, experiment("error_rate", arms={"b": {"precision": "int8"}}))
    assert [replica.tag for replica in context.ledger.rollouts.wanted_replicas()] == ["docs:v1"]


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        (experiment("error_rate", arms={"b": {"version": "v2"}}), "v2, which is candidate"),
        (experiment("error_rate", arms={"b": {"version": "v9"}}), "v9, which is unknown"),
        (experiment("error_rate", model="other"), "a champion, which is unknown"),
        (experiment("feedback"), "log_share of the recipe is 0"),
        (experiment("error_rate", arms={"b": {"precision": "fp32"}}), "no checkpoint of it"),
    ],
)
def test_what_cannot_be_served_or_told_is_refused(context: Context, wanted: Experiment, got: str) -> None:
    with pytest.raises(TidemillError, match=got):
        start(context, wanted)
    assert running(context) == []


def test_the_report_names_the_better_arm_with_its_interval(context: Context) -> None:
    view = seen(context, experiment("error_rate", "latency_p50"), [(0, 10)] * 8)
    assert conclusions(view) == ["Arm a is better in error_rate.", "Undecided: latency_p50."]
    errors, latency = lines(view)
    assert (errors.a, errors.b, errors.against, errors.outcome) == ("0.00%", "10.0%", "b - a +10.0 pt", "a is better")
    assert errors.samples == "800/800"
    assert errors.interval.startswith("+")
    assert latency.against == "b / a ×1.00"
    told = report_markdown(view)
    assert "- Arm b, 50%: v1 as v1-b1; temperature 0.2; system prompt “Be \\| brief.”" in told
    assert "**Arm a is better in error\\_rate.**" in told or "**Arm a is better in error_rate.**" in told


def test_what_is_undecided_is_told_with_what_it_would_take(context: Context) -> None:
    view = seen(context, experiment("error_rate"), [(1, 3)] * 5)
    (errors,) = lines(view)
    assert errors.outcome.startswith("undecided; roughly ")
    assert errors.outcome.endswith("0 more requests")
    assert view.state.state == "running"


def test_before_the_first_answer_there_is_nothing_to_tell(context: Context) -> None:
    view = read_view(context.ledger, start(context, experiment("error_rate")).rollout_id)
    assert [line.outcome for line in lines(view)] == ["no data yet"]
    assert conclusions(view) == ["Undecided: error_rate."]
    assert "not judged yet" in report_markdown(view)


def test_reports_of_ended_experiments_are_kept_once(context: Context, bucket: Bucket) -> None:
    view = seen(context, experiment("error_rate"), [(0, 10)] * 8)
    assert view.state.state == "ended"
    assert ExperimentReports(context).tick() == [view.state.rollout_id]
    assert ExperimentReports(context).tick() == []  # of another process, too
    prefix = f"reports/docs/experiment/{view.state.rollout_id}/"
    assert bucket.get(f"{prefix}report.png").startswith(b"\x89PNG")
    assert Experiment.model_validate_json(bucket.get(f"{prefix}experiment.json")) == view.state.experiment
    assert keep_experiment_report(context, view.state.rollout_id) == prefix


def test_an_experiment_that_there_is_not_is_told_with_those_there_are(context: Context) -> None:
    with pytest.raises(TidemillError, match="there is none yet"):
        named(context.ledger, "brevity")
    start(context, experiment("error_rate"))
    with pytest.raises(TidemillError, match="expected one of brevity, got 'brevty'"):
        named(context.ledger, "brevty")


def test_an_arms_lineage_is_its_versions(context: Context) -> None:
    state = start(context, experiment("error_rate"))
    assert lineage(context, f"docs/{state.challenger}") == lineage(context, "docs/v1")
