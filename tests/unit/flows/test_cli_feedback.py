"""`tidemill feedback`: what it puts into the bucket is what rollouts read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import typer
from typer.testing import CliRunner, Result

from flows.cli_feedback import feedback
from flows.rollout_feedback import Feedback, FeedbackReader
from lake.bucket import Bucket
from lake.errors import TidemillError
from lake.settings import Settings


@pytest.fixture(autouse=True)
def installation(settings: Settings, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    bucket.put("recipes/docs.yaml", b"name: docs\n")


def tidemill(*arguments: str) -> Result:
    commands = typer.Typer()
    commands.command()(feedback)
    return CliRunner().invoke(commands, list(arguments))


def given(bucket: Bucket) -> list[Feedback]:
    return FeedbackReader(bucket, "docs", datetime(2026, 1, 1, tzinfo=UTC)).read()


def test_scores_and_right_answers_are_read_by_rollouts(bucket: Bucket) -> None:
    assert given(bucket) == []
    scored = tidemill("docs", "request-1", "0.25")
    assert scored.exit_code == 0, scored.output
    assert f"s3://{bucket.name}/feedback/docs/dt=" in scored.output.replace("\n", "")
    assert tidemill("docs", "request-2", "--expected", "42").exit_code == 0
    told = {(one.request_id, one.score, one.expected) for one in given(bucket)}
    assert told == {("request-1", 0.25, None), ("request-2", None, "42")}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("docs", "r", "1.5"), "score: "),
        (("docs", "r", "nan"), "score: "),
        (("docs", "r"), "neither: "),
        (("docs", "", "1"), "request_id: "),
        (("nobody", "r", "1"), "one of docs, got 'nobody'"),
    ],
)
def test_what_is_none_is_refused(bucket: Bucket, arguments: tuple[str, ...], told: str) -> None:
    refused = tidemill(*arguments)
    assert refused.exit_code == 1
    assert isinstance(refused.exception, TidemillError)
    assert told in str(refused.exception)
    assert given(bucket) == []
