"""Events of the bucket by an SQS queue: each wakes the watcher at once, instead of at its next look.

A message is deleted once what it names is durable in the ledger, and not before: killed in between, the next receive
brings it again, and it wakes twice, which is harmless. A message that cannot be read is left to the queue, which moves it
to the dead-letter queue after as many receives as its redrive policy says.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from flows.context import Context
from lake.errors import StorageError, TidemillError
from lake.notification import EventUnreadable, in_inbox, named_objects
from lake.settings import Settings

log = logging.getLogger("tidemill.sqs")
# Stopping waits for a receive to return. 20 s is the longest; a tenth of it costs 1.3 million requests a month.
WAIT_S = 2
MESSAGES = 10  # the most that one receive brings
LONGEST_PAUSE_S = 30.0
_QUEUE_ERRORS = (BotoCoreError, ClientError)
NO_REDRIVE = "a message that cannot be read comes again until its retention ends"
GIVE_REDRIVE = "give the queue a RedrivePolicy: its dead-letter queue keeps what cannot be read"


def listen(context: Context, stopping: threading.Event, wake: Callable[[], None]) -> None:
    """Take events from the queue of the settings until `stopping` is set; `wake` is called once they are in the ledger.

    Nothing else ends it, and nothing is raised: a queue or ledger that is away is complained about once and asked again
    after growing pauses.
    """
    listener = Listener(context, wake)
    complained, failures = "", 0
    while not stopping.is_set():
        try:
            listener.receive()
            if complained:
                log.info("the queue is read again")
            complained, failures = "", 0
        except Exception as error:
            problem = _problem(error, context.settings)
            if problem != complained:
                complained = problem
                log.error("%s", problem)
            stopping.wait(min(LONGEST_PAUSE_S, 2.0**failures))
            failures = min(failures + 1, 10)


class Listener:
    """One reader of the queue. Any number may read the same one."""

    def __init__(self, context: Context, wake: Callable[[], None]) -> None:
        self._context = context
        self._wake = wake
        self._url = context.settings.sqs_queue_url
        self._client: Any = None
        self._unreadable: deque[str] = deque(maxlen=1_000)  # ids of messages that have been told about

    def receive(self) -> int:
        """Wait for messages, record what they name, then delete them. Returns how many could be read.

        Raises what boto3 and the ledger raise; every message that was not deleted comes again.
        """
        if self._client is None:
            client = queue_client(self._context.settings)
            if not has_redrive_policy(client, self._url):
                log.warning("%s has no redrive policy: %s; %s", self._url, NO_REDRIVE, GIVE_REDRIVE)
            self._client = client
        answer = self._client.receive_message(QueueUrl=self._url, MaxNumberOfMessages=MESSAGES, WaitTimeSeconds=WAIT_S)
        named: list[tuple[str, str]] = []
        read: list[dict[str, str]] = []
        for message in answer.get("Messages", []):
            try:
                named += named_objects(message["Body"])
            except EventUnreadable as error:
                self._tell(message["MessageId"], error)
            else:
                read.append({"Id": str(len(read)), "ReceiptHandle": message["ReceiptHandle"]})
        recorded = self._context.ledger.wakeups.record(in_inbox(named, self._context.settings.bucket), "sqs")
        if recorded:
            self._wake()
        if read:
            self._client.delete_message_batch(QueueUrl=self._url, Entries=read)
        return len(read)

    def _tell(self, message_id: str, error: EventUnreadable) -> None:
        if message_id not in self._unreadable:
            self._unreadable.append(message_id)
            log.warning("message %s is left to the queue's redrive policy: %s", message_id, error)


def queue_client(settings: Settings) -> Any:
    """A client of the queue's service, with the store's keys where they are set, else boto3's own credential chain.

    The keys that Tidemill makes for the embedded store are nothing to AWS, and are not shown to it.
    """
    return boto3.session.Session().client(  # a session of its own: the shared one is not for several threads
        "sqs",
        endpoint_url=settings.sqs_endpoint_url,
        region_name=_region(settings),
        aws_access_key_id=settings.s3_access_key_id,
        aws_secret_access_key=settings.s3_secret_access_key,
        config=Config(connect_timeout=5, read_timeout=WAIT_S + 10, retries={"max_attempts": 1, "mode": "standard"}),
    )


def has_redrive_policy(client: Any, url: str | None) -> bool:
    """Whether the queue moves to another what could not be read. Raises botocore's errors when it does not answer."""
    answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
    return bool(json.loads(answer.get("Attributes", {}).get("RedrivePolicy") or "{}"))


def queue_error(error: Exception, settings: Settings) -> TidemillError:
    """What boto3 says about the queue, with a remedy."""
    got = f"{type(error).__name__}: {error}"
    if isinstance(error, ClientError):
        got = f"{error.response['Error']['Code']} {error.response['Error'].get('Message', '')}".strip()
    return StorageError(
        f"queue {settings.sqs_queue_url}",
        expected="an answer from the queue",
        got=got,
        remedy="check TIDEMILL_SQS_QUEUE_URL and TIDEMILL_SQS_ENDPOINT_URL, and that the credentials may receive and "
        "delete messages and read the queue's attributes",
    )


def _region(settings: Settings) -> str:
    """AWS names it in the queue's URL: the queue is not always in the region that the settings give the store."""
    found = re.match(r"https://sqs\.([a-z0-9-]+)\.amazonaws\.com", settings.sqs_queue_url or "")
    return found[1] if found else settings.s3_region


def _problem(error: Exception, settings: Settings) -> str:
    if isinstance(error, _QUEUE_ERRORS):
        return str(queue_error(error, settings))
    # Of the database's errors only what it says itself: the rest holds the time, and no two would be the same.
    cause = getattr(error, "orig", None) or error
    return f"events wait in the queue: {type(cause).__name__}: {cause}"
