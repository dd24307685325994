"""`tidemill rollout …` against a real ledger and bucket. What flows and the controller do with an order is tested there."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from sqlalchemy import update
from typer.testing import CliRunner

from flows import cli_rollout
from flows.cli import commands
from flows.rollout_recent import recent_requests_per_s
from lake.bucket import Bucket, BucketAddress
from lake.errors import TidemillError
from lake.layout import recipe_key
from lake.ledger import Ledger
from lake.ledger.tables import rollouts, versions
from lake.records import PredictionLog
from lake.settings import Settings
from tests.rollout_story import Story, promoted, rolled_back, under_way

Run = Callable[..., Result]


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `tidemill rollout ARGUMENTS` on the test's own installation; a TidemillError is raised."""
    monkeypatch.setattr(cli_rollout, "load_settings", lambda: settings)
    monkeypatch.setattr(cli_rollout.out, "width", 100)

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(commands, ["rollout", *arguments], terminal_width=100)
        if isinstance(result.exception, TidemillError):
            raise result.exception
        return result

    return invoke


@pytest.mark.parametrize("command", ["show", "report", "plan", "watch", "start", "back", "approve", "undo"])
def test_every_command_teaches(command: str) -> None:
    result = CliRunner().invoke(commands, ["rollout", command, "--help"])
    assert result.exit_code == 0 and len(result.output) > 300


def test_the_timeline(run: Run, ledger: Ledger) -> None:
    assert "no rollout yet" in run().output
    promoted(ledger)
    ledger.alarms.raised("controller", "no sign of life")
    text = run().output
    assert "docs-v2-1" in text and "promoted" in text and "ALARM" in text and "no sign of life" in text
    (row,) = json.loads(run("--json").output)
    assert [stage["stage"] for stage in row["stages"]] == ["shadow", "ab", "canary"]
    assert "docs-v2-1" not in run("--model", "other").output


def test_one_rollout_in_full(run: Run, ledger: Ledger) -> None:
    rolled_back(ledger)
    text = run("show", "docs-v2-1").output
    assert "rolled back, ab → rolled_back" in text and "WORSE" in text and "split as planned" in text
    assert len(json.loads(run("show", "docs-v2-1", "--json").output)["decisions"]) == 3
    with pytest.raises(TidemillError, match="docs-v2-1"):
        run("show", "docs-v7-1")


def test_a_report_is_written_again(run: Run, bucket: Bucket, ledger: Ledger) -> None:
    promoted(ledger)
    text = run("report", "docs-v2-1").output
    for name in ("report.md", "report.png", "decisions.json"):
        key = f"reports/docs/rollout/docs-v2-1/{name}"
        assert f"s3://{bucket.name}/{key}" in text
        assert bucket.exists(key)


def test_watching_once_tells_the_outcome_by_its_status(run: Run, ledger: Ledger) -> None:
    under_way(ledger)
    result = run("watch", "--once")
    assert result.exit_code == 0 and "canary 75%" in result.output
    rolled_back(ledger, model="other")
    result = run("watch", "other", "--once")
    assert result.exit_code == 1 and "rolled back after" in result.output


def test_a_plan_of_a_file_is_explained_with_its_time(run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: docs\nrollout: {steps: [{stage: ab, share: 0.1, max_duration_s: 60}]}\n")
    text = run("plan", str(recipe)).output
    assert "Step 1: A/B 10%" in text and "No traffic is known" in text
    text = " ".join(run("plan", str(recipe), "--requests-per-s", "0.5").output.split())
    assert "WARNING at 0.5 requests/s step 1 (A/B 10%) cannot reach 30 requests within its 1 min" in text
    assert "NEVER" in text
    told = json.loads(run("plan", str(recipe), "-r", "50", "--json").output)
    assert told["estimate"]["steps"][0]["shortest_s"] == 6.0
    assert {found["metric"] for found in told["estimate"]["detections"]} >= {"error_rate", "latency_p50"}


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("{steps: [{stage: canary, share: 0.5}, {stage: canary, share: 0.1}]}", "canary shares that grow"),
        ("{steps: [{stage: canary, share: 0.5}, {stage: shadow, share: 1}]}", "in the order shadow, ab, canary"),
        ("{steps: [{stage: ab, share: 1.2}]}", "less than or equal to 1"),
        ("{checks: [{metric: happiness}]}", "happiness"),
        ("{checks: [{metric: latency_p95, margin: 0.5}]}", "a factor of at least 1"),
        ("{steps: [{stage: ab, share: 0.5, min_duration_s: 60, max_duration_s: 10}]}", "at most max_duration_s"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(run: Run, tmp_path: Path, plan: str, words: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: docs\nrollout: {plan}\n")
    with pytest.raises(TidemillError) as caught:
        run("plan", str(recipe))
    assert "rollout" in caught.value.where
    assert words in f"{caught.value.expected} {caught.value.got}"


def test_a_models_plan_takes_its_recent_traffic(run: Run, bucket: Bucket, ledger: Ledger, settings: Settings) -> None:
    bucket.put(recipe_key("docs"), b"name: docs\n")
    assert "No traffic is known" in run("plan", "docs").output
    _log(bucket, settings, n=120, over_s=60.0)
    rate = recent_requests_per_s(BucketAddress.of(settings), "docs", 1.0)
    assert rate == pytest.approx(2.0, rel=0.2)
    assert recent_requests_per_s(BucketAddress.of(settings), "docs", 0.5) == pytest.approx(4.0, rel=0.2)
    assert "(all of this is estimated)" in run("plan", "docs").output


def test_an_unknown_model_or_file_is_refused(run: Run, bucket: Bucket) -> None:
    with pytest.raises(TidemillError, match="none is registered"):
        run("plan", "docs")
    with pytest.raises(TidemillError, match="no such file"):
        run("plan", "missing.yaml")


def test_an_approval_is_kept_for_the_step_that_pauses(run: Run, ledger: Ledger) -> None:
    story = Story(ledger).begun().enter(0)
    with pytest.raises(TidemillError, match="pauses for approval"):
        run("approve", "docs")
    story.enter(1)
    assert "docs-v2-1: approved" in run("approve", "docs").output
    assert story.state.approved_step == 1


def test_back_ends_what_is_under_way_with_the_reason(run: Run, ledger: Ledger) -> None:
    under_way(ledger)
    run("back", "docs", "--reason", "a smell")
    state = ledger.rollouts.get("docs-v2-1")
    assert state is not None and state.state == "rolled_back"
    assert "a smell" in ledger.rollouts.decisions("docs-v2-1")[-1].reason
    with pytest.raises(TidemillError, match="a rollout under way"):
        run("back", "docs")


def test_undo_takes_a_promotion_back(run: Run, ledger: Ledger) -> None:
    promoted(ledger)
    ledger.rollouts.want_replica(model="docs", version="v1", tag="docs:v1", environment={})
    with ledger.engine.begin() as connection:
        later = datetime.now(UTC) + timedelta(minutes=5)
        connection.execute(update(rollouts).values(retain_until=later))
        connection.execute(update(versions).where(versions.c.version == "v1").values(state="retired"))
    text = " ".join(run("undo", "docs", "--reason", "users complain").output.split())
    assert "docs: v1 gets all traffic instead of v2" in text
    champion = ledger.versions.champion("docs")
    assert champion is not None and champion.version == "v1"
    with pytest.raises(TidemillError, match="came by a rollout"):
        run("undo", "docs")


def _log(bucket: Bucket, settings: Settings, *, n: int, over_s: float) -> None:
    """Rows as a replica writes them."""
    from bentos.prediction_log import PredictionLogger

    now = datetime.now(UTC)
    logger = PredictionLogger(lambda: Bucket(BucketAddress.of(settings)), model="docs", version="v1", share=1.0)
    for number in range(n):
        logger.record(
            PredictionLog(
                request_id=f"r{number}", model="docs", version="v1", at=now - timedelta(seconds=over_s * number / n),
                prompt="p", response="r", n_prompt_tokens=1, n_response_tokens=1, latency_ms=1.0, status=200, shadow=False,
            )
        )  # fmt: skip
    logger.close(20.0)
