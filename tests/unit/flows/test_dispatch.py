"""What can be told without a Prefect server; tests/integration/test_training_run.py has the rest."""

from __future__ import annotations

import json
import logging

import httpx
import pytest

from flows import dispatch
from flows.context import Context
from flows.dispatch import _patiently, read_progress, wait_for_rollout
from flows.rollout_report import keep_rollout_report
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.settings import Settings
from tests.rollout_story import rolled_back, under_way


def test_an_answer_is_waited_for_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "POLL_S", 0.01)
    n_asked = 0

    def ask() -> str:
        nonlocal n_asked
        n_asked += 1
        if n_asked < 4:
            raise httpx.ConnectError("connection refused")
        return "here"

    assert _patiently(ask) == "here"
    assert n_asked == 4


def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "POLL_S", 0.01)
    monkeypatch.setattr(dispatch, "SERVER_AWAY_S", 0.05)

    def ask() -> str:
        raise httpx.ReadTimeout("no answer")

    with pytest.raises(httpx.ReadTimeout):
        _patiently(ask)


def test_a_refusal_is_an_answer() -> None:
    def ask() -> str:
        request = httpx.Request("GET", "http://127.0.0.1/")
        raise httpx.HTTPStatusError("404", request=request, response=httpx.Response(404, request=request))

    with pytest.raises(httpx.HTTPStatusError):
        _patiently(ask)


def test_progress_is_none_before_it_is_told(settings: Settings) -> None:
    context = Context(settings)
    assert read_progress(context, "docs", "v1") is None
    path = context.progress_file("docs", "v1")
    path.parent.mkdir(parents=True)
    path.write_text('{"step": 3')  # not as this code writes it, by a rename
    assert read_progress(context, "docs", "v1") is None
    path.write_text('{"step": 3, "n_steps": 10}')
    assert read_progress(context, "docs", "v1") == {"step": 3, "n_steps": 10}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the flow run's log is told. There is no run here, so no logger of one."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.Logger("run")
    logger.addHandler(Lines())
    monkeypatch.setattr(dispatch, "get_run_logger", lambda: logger)
    monkeypatch.setattr(dispatch, "POLL_S", 0.01)
    return lines


def test_every_decision_is_told_and_the_report_kept_as_the_rollout_goes(
    settings: Settings, bucket: Bucket, ledger: Ledger, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last decision comes while the report of those before is written; it is told, and is in the last report."""
    monkeypatch.setattr("prefect.artifacts.create_markdown_artifact", lambda text, **named: None)
    story = under_way(ledger)
    reports: list[int] = []

    def kept(context: Context, rollout_id: str) -> str:
        if not reports:
            story.end("rolled_back", "too many errors")
        prefix = keep_rollout_report(context, rollout_id)
        reports.append(len(json.loads(bucket.get(f"{prefix}decisions.json"))["decisions"]))
        return prefix

    monkeypatch.setattr(dispatch, "keep_rollout_report", kept)
    assert wait_for_rollout(Context(settings), story.rollout_id) == "rollout docs-v2-1: rolled_back"
    decisions = [line for line in told if "→" in line]
    assert [line.partition(":")[0] for line in decisions] == ["start", "promote", "promote", "roll_back"]
    assert reports == [4, 4]
    assert any(f"s3://{bucket.name}/reports/docs/rollout/docs-v2-1/report.md" in line for line in told)


def test_a_store_that_is_away_costs_the_report_and_nothing_else(
    settings: Settings, ledger: Ledger, told: list[str]
) -> None:
    rolled_back(ledger)
    nowhere = Context(settings.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:1"}))
    assert wait_for_rollout(nowhere, "docs-v2-1") == "rollout docs-v2-1: rolled_back"
    assert any(line.startswith("no report of docs-v2-1 now:") for line in told)


def test_a_rollout_that_is_not_there_ends_the_wait(settings: Settings, ledger: Ledger, told: list[str]) -> None:
    assert wait_for_rollout(Context(settings), "docs-v9-1") == "rollout docs-v9-1: unknown"
