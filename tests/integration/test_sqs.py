"""The queue's listener against a real server: notifications of a bucket, duplicates, kills, what cannot be read."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flows import doctor, sqs
from flows.context import Context
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.settings import Settings
from tests.ports import free_ports
from tests.servers import answers, process, wait_until

pytestmark = pytest.mark.integration
KEYS = ["inbox/m/a.txt", "inbox/m/ü 日本+%20&=.txt", "inbox/m/50%.txt", "inbox/m/%2F"]


@pytest.fixture(scope="module")
def moto_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """S3 and SQS in one server."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with process(command, tmp_path_factory.mktemp("moto") / "moto.log"):
        wait_until("moto answers", lambda: answers(f"http://127.0.0.1:{port}/moto-api/"))
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def short_receives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test stops a listener, which waits for its receive."""
    monkeypatch.setattr(sqs, "WAIT_S", 1)


@pytest.fixture
def store_url(moto_url: str) -> str:
    return moto_url


class Queue:
    """A queue of a test's own with a dead-letter queue: visible again after 1 s, moved away after two receives."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.client: Any = sqs.queue_client(settings)
        self.dead = self.client.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        policy = {"deadLetterTargetArn": self._arn(self.dead), "maxReceiveCount": 2}
        attributes = {"VisibilityTimeout": "1", "RedrivePolicy": json.dumps(policy)}
        self.url: str = self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    @property
    def arn(self) -> str:
        return self._arn(self.url)

    def send(self, body: Any) -> None:
        self.client.send_message(QueueUrl=self.url, MessageBody=body if isinstance(body, str) else json.dumps(body))

    def is_empty(self) -> bool:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return all(found[name] == "0" for name in names)

    def dead_letters(self) -> list[str]:
        answer = self.client.receive_message(QueueUrl=self.dead, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return [message["Body"] for message in answer.get("Messages", [])]

    def _arn(self, url: str) -> str:
        answer = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        arn: str = answer["Attributes"]["QueueArn"]
        return arn


@pytest.fixture
def context(settings: Settings, ledger: Ledger, moto_url: str) -> Context:
    """An installation whose queue is named, and not there yet."""
    url = f"{moto_url}/123456789012/{settings.bucket}"
    return Context(settings.model_copy(update={"sqs_endpoint_url": moto_url, "sqs_queue_url": url}))


@pytest.fixture
def queue(context: Context) -> Queue:
    return Queue(context.settings, context.settings.bucket)


@contextmanager
def listening(context: Context) -> Iterator[threading.Event]:
    """The listener in a thread, as `serve` runs it; gives the event that is set when it wakes."""
    stopping, woken = threading.Event(), threading.Event()
    thread = threading.Thread(target=sqs.listen, args=(context, stopping, woken.set))
    thread.start()
    try:
        yield woken
    finally:
        stopping.set()
        started = time.monotonic()
        thread.join(timeout=20)
        assert time.monotonic() - started < sqs.WAIT_S + 1.5, "it was not stopped promptly"


def event(context: Context, key: str) -> dict[str, Any]:
    return {"Records": [{"s3": {"bucket": {"name": context.settings.bucket}, "object": {"key": key}}}]}


def keys(context: Context) -> list[str]:
    return [wakeup.key for wakeup in context.ledger.wakeups.pending()]


def test_what_is_dropped_wakes_by_the_very_key_that_is_listed(context: Context, bucket: Bucket, queue: Queue) -> None:
    everything = {"QueueArn": queue.arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
    bucket.client.put_bucket_notification_configuration(
        Bucket=bucket.name, NotificationConfiguration={"QueueConfigurations": [everything]}
    )
    with listening(context) as woken:
        for key in KEYS:
            bucket.put(key, b"x")
        bucket.put("models/m/v1/bento/x", b"not of a user")
        wait_until("every object has woken", lambda: set(keys(context)) == set(KEYS))
        assert woken.is_set()
        wait_until("all is deleted, the test event too", queue.is_empty)
    assert sorted(set(keys(context))) == sorted(ref.key for ref in bucket.list("inbox/"))


def test_duplicates_old_news_and_others_events_are_harmless(context: Context, queue: Queue) -> None:
    for key in ("inbox/m/b", "inbox/m/a", "inbox/m/b", "inbox/m/b"):
        queue.send(event(context, key))
    queue.send({"Records": [{"s3": {"bucket": {"name": "another"}, "object": {"key": "inbox/m/c"}}}]})
    queue.send({"Type": "Notification", "Message": json.dumps(event(context, "inbox/m/by+sns"))})
    with listening(context):
        wait_until("all is deleted", queue.is_empty)
    assert set(keys(context)) == {"inbox/m/a", "inbox/m/b", "inbox/m/by sns"}


def test_killed_between_record_and_delete_the_message_comes_again(context: Context, queue: Queue) -> None:
    queue.send(event(context, "inbox/m/a"))

    def receive() -> None:  # `wake` is called between the two: ending there is the kill
        sqs.Listener(Context(context.settings), lambda: os._exit(9)).receive()

    killed = multiprocessing.get_context("fork").Process(target=receive)
    killed.start()
    killed.join(timeout=30)
    assert killed.exitcode == 9
    assert keys(context) == ["inbox/m/a"]
    assert not queue.is_empty()
    with listening(context):
        wait_until("it has come again", queue.is_empty)
    assert keys(context) == ["inbox/m/a", "inbox/m/a"]  # it wakes twice, which is harmless


def test_what_cannot_be_read_ends_in_the_dead_letter_queue_and_holds_nothing_up(
    context: Context, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    queue.send("not an event")
    queue.send(event(context, "inbox/m/a"))
    with listening(context):
        wait_until("the other has woken", lambda: keys(context) == ["inbox/m/a"])
        wait_until("it is in the dead-letter queue", lambda: queue.dead_letters() == ["not an event"])
    assert queue.is_empty()
    assert keys(context) == ["inbox/m/a"]
    assert caplog.text.count("is left to the queue's redrive policy") == 1


def test_a_queue_that_comes_later_is_found(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    with listening(context):
        wait_until("it is complained about", lambda: "NonExistentQueue" in caplog.text)
        queue = Queue(context.settings, context.settings.bucket)
        queue.send(event(context, "inbox/m/a"))
        wait_until("it is read", lambda: keys(context) == ["inbox/m/a"])
    assert caplog.text.count("expected an answer from the queue") == 1


def test_doctor_says_what_is_with_the_queue(context: Context) -> None:
    (missing,) = doctor._events(context.settings)
    assert (missing.ok, "NonExistentQueue" in missing.detail) == (False, True)
    queue = Queue(context.settings, context.settings.bucket)
    (good,) = doctor._events(context.settings)
    assert (good.ok, good.remedy) == (True, None)
    queue.client.set_queue_attributes(QueueUrl=queue.url, Attributes={"RedrivePolicy": ""})
    (without,) = doctor._events(context.settings)
    assert (without.ok, without.remedy) == (False, sqs.GIVE_REDRIVE)
    away = context.settings.model_copy(update={"sqs_endpoint_url": f"http://127.0.0.1:{free_ports(1)[0]}"})
    (finding,) = doctor._events(away)
    assert (finding.ok, "Could not connect" in finding.detail) == (False, True)
