"""Reading the queue, with a stand-in for it: in which order things are done, and what happens when something is away."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from sqlalchemy.exc import OperationalError

from flows import sqs
from lake.settings import Settings, load_settings

URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/tidemill-events"


def message(key: str, bucket: str = "tidemill") -> str:
    return json.dumps({"Records": [{"s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]})


class Queue:
    """A client of SQS. `bodies` are received at once and stay until they are deleted; `faults` are raised first."""

    def __init__(self, done: list[Any], bodies: list[str], faults: list[Exception], policy: str | None) -> None:
        self.done, self.bodies, self.faults, self.policy = done, bodies, faults, policy

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        return {"Attributes": {"RedrivePolicy": self.policy} if self.policy else {}}

    def receive_message(self, **_: Any) -> dict[str, Any]:
        if self.faults:
            raise self.faults.pop(0)
        return {
            "Messages": [
                {"MessageId": f"m{i}", "ReceiptHandle": f"r{i}", "Body": body} for i, body in enumerate(self.bodies)
            ]
        }

    def delete_message_batch(self, Entries: list[dict[str, str]], **_: Any) -> None:  # noqa: N803  (boto3's name)
        self.done.append(("deleted", [entry["ReceiptHandle"] for entry in Entries]))


class Stopping:
    """An event that is set after so many looks. Waiting takes no time."""

    def __init__(self, looks: int) -> None:
        self.looks, self.paused = looks, list[float]()

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def wait(self, seconds: float) -> None:
        self.paused.append(seconds)


class Around:
    """A listener's surroundings; `done` holds what has happened, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
        self.done: list[Any] = []
        self.bodies: list[str] = []
        self.faults: list[Exception] = []
        self.policy: str | None = '{"deadLetterTargetArn": "arn:…", "maxReceiveCount": 3}'
        self.ledger_faults: list[Exception] = []
        ledger = SimpleNamespace(wakeups=SimpleNamespace(record=self.record))
        self.context: Any = SimpleNamespace(settings=settings, ledger=ledger)
        monkeypatch.setattr(sqs, "queue_client", lambda _: Queue(self.done, self.bodies, self.faults, self.policy))

    def record(self, named: list[tuple[str, str]], source: str) -> int:
        if self.ledger_faults:
            raise self.ledger_faults.pop(0)
        self.done.append((source, named))
        return len(named)

    def listen(self, rounds: int) -> Stopping:
        stopping = Stopping(rounds)
        sqs.listen(self.context, stopping, lambda: self.done.append("woken"))  # type: ignore[arg-type]
        return stopping


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Around:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    return Around(monkeypatch, load_settings(sqs_queue_url=URL))


def test_deleted_is_what_has_been_recorded_and_after_that(around: Around) -> None:
    around.bodies += [message("inbox/m/a+b"), "{}", message("inbox/m/c")]
    around.listen(1)
    recorded = [("tidemill", "inbox/m/a b"), ("tidemill", "inbox/m/c")]
    assert around.done == [("sqs", recorded), "woken", ("deleted", ["r0", "r2"])]


def test_nothing_is_deleted_that_the_ledger_has_not_taken(around: Around, caplog: pytest.LogCaptureFixture) -> None:
    around.bodies.append(message("inbox/m/a"))
    # As the database says it: the statement's values hold the time, and differ each time.
    around.ledger_faults += [OperationalError("INSERT …", {"at": at}, Exception("database is locked")) for at in "abc"]
    assert around.listen(4).paused == [1, 2, 4]
    assert around.done == [("sqs", [("tidemill", "inbox/m/a")]), "woken", ("deleted", ["r0"])]
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == ["events wait in the queue: Exception: database is locked"]


def test_a_queue_that_is_away_is_complained_about_once_and_asked_ever_more_seldom(
    around: Around, caplog: pytest.LogCaptureFixture
) -> None:
    around.bodies.append(message("inbox/m/a"))
    around.faults += [EndpointConnectionError(endpoint_url=URL) for _ in range(8)]
    with caplog.at_level(logging.INFO, "tidemill.sqs"):
        stopping = around.listen(9)
    assert stopping.paused == [1, 2, 4, 8, 16, 30, 30, 30]
    away, again = [record.message for record in caplog.records]
    assert away.startswith(f"queue {URL}: expected an answer from the queue, got EndpointConnectionError")
    assert "TIDEMILL_SQS_QUEUE_URL" in away
    assert again == "the queue is read again"
    assert around.done[-1] == ("deleted", ["r0"])


def test_a_refusal_is_told_in_the_services_words(around: Around, caplog: pytest.LogCaptureFixture) -> None:
    around.faults.append(ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ReceiveMessage"))
    around.listen(1)
    assert "got AccessDenied no; check TIDEMILL_SQS_QUEUE_URL" in caplog.text


def test_an_unreadable_message_is_told_about_once(around: Around, caplog: pytest.LogCaptureFixture) -> None:
    around.bodies += ["not JSON", message("inbox/m/a")]
    around.listen(3)
    told = [record.message for record in caplog.records]
    assert len(told) == 1
    assert told[0].startswith("message m0 is left to the queue's redrive policy: event: expected an event as JSON")


def test_without_a_redrive_policy_that_is_said_at_the_start(around: Around, caplog: pytest.LogCaptureFixture) -> None:
    around.policy = None
    around.listen(2)
    assert [record.message for record in caplog.records] == [
        f"{URL} has no redrive policy: {sqs.NO_REDRIVE}; {sqs.GIVE_REDRIVE}"
    ]


def test_events_of_others_are_deleted_and_wake_nobody(around: Around) -> None:
    around.bodies += [message("inbox/m/a", bucket="other"), message("models/m/v1/x"), '{"Event": "s3:TestEvent"}']
    around.listen(1)
    assert around.done == [("sqs", []), ("deleted", ["r0", "r1", "r2"])]


@pytest.mark.parametrize(
    ("url", "region"),
    [
        (URL, "eu-central-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1"),
        ("http://127.0.0.1:9324/000000000000/q", "us-east-1"),
    ],
)
def test_the_region_is_the_queues(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, url: str, region: str) -> None:
    settings = load_settings(home=tmp_path, sqs_queue_url=url, s3_region="us-east-1")
    assert sqs.queue_client(settings).meta.region_name == region


def test_the_embedded_stores_keys_are_not_shown_to_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-the-environment")
    settings = load_settings(home=tmp_path, sqs_queue_url=URL)
    assert settings.access_key_id == "tidemill"
    assert sqs.queue_client(settings)._request_signer._credentials.access_key == "of-the-environment"
