"""The webhook as a process, told by a real store: what has been written is in the ledger under its very key."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flows import doctor
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.settings import Settings
from tests.ports import free_ports
from tests.s3 import address_of, versitygw
from tests.servers import answers, process, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def store_url() -> str:
    """None is asked: the store of these tests is the one that sends the events."""
    return "http://127.0.0.1:9"


@pytest.fixture
def listening(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_port": free_ports(1)[0]})


@pytest.fixture
def events_url(listening: Settings, ledger: Ledger) -> Iterator[str]:
    """The webhook of the settings' installation, ready; without the secret that it wants."""
    base = f"http://127.0.0.1:{listening.webhook_port}"
    log = listening.home / "logs" / "webhook.log"
    with process([sys.executable, "-m", "flows.webhook"], log, listening.environment()):
        wait_until("the webhook answers", lambda: answers(f"{base}/healthz"))
        yield f"{base}/events"


def with_secret(url: str, secret: str) -> str:
    return url.replace("http://", f"http://tidemill:{secret}@")


def event(bucket: str, key: str) -> dict[str, object]:
    return {"Records": [{"s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]}


def woken(ledger: Ledger) -> list[str]:
    return [wakeup.key for wakeup in ledger.wakeups.pending()]


KEYS = ["inbox/m/a.txt", "inbox/m/ü 日本+%20&=.txt", "inbox/m/50%.txt", "inbox/m/%2F"]


def test_a_store_wakes_by_the_very_keys_it_lists(
    events_url: str, settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    with versitygw(tmp_path / "s3", with_secret(events_url, settings.event_secret)) as url:
        bucket = Bucket(address_of(url, settings.bucket))
        bucket.ensure(create=True)
        for key in KEYS:
            bucket.put(key, b"x")
        bucket.put("models/m/v1/bento/x", b"not of a user")
        wait_until("every object has woken", lambda: set(woken(ledger)) == set(KEYS))
        assert sorted(woken(ledger)) == sorted(ref.key for ref in bucket.list("inbox/"))
        assert {wakeup.bucket for wakeup in ledger.wakeups.pending()} == {settings.bucket}
        ledger.wakeups.forget([wakeup.number for wakeup in ledger.wakeups.pending()])

        bucket.client.delete_object(Bucket=settings.bucket, Key=KEYS[1])
        bucket.client.delete_objects(Bucket=settings.bucket, Delete={"Objects": [{"Key": key} for key in KEYS[2:]]})
        wait_until("every deletion has woken", lambda: set(woken(ledger)) == set(KEYS[1:]))


def test_a_store_with_another_secret_wakes_nobody(
    events_url: str, settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    with versitygw(tmp_path / "s3", with_secret(events_url, "wh-another")) as url:
        bucket = Bucket(address_of(url, settings.bucket))
        bucket.ensure(create=True)
        bucket.put("inbox/m/a.txt", b"x")
        time.sleep(0.3)  # the store sends aside, within milliseconds
        known = {"authorization": f"Bearer {settings.event_secret}"}
        assert httpx.post(events_url, json=event(settings.bucket, "inbox/m/known"), headers=known).status_code == 204
        assert woken(ledger) == ["inbox/m/known"]
    refused = httpx.post(with_secret(events_url, "wh-another"), json=event(settings.bucket, "inbox/m/a.txt"))
    assert refused.status_code == 401
    assert woken(ledger) == ["inbox/m/known"]


def test_while_the_ledger_is_locked_the_sender_keeps_its_event(
    events_url: str, settings: Settings, listening: Settings, ledger: Ledger
) -> None:
    url, body = with_secret(events_url, settings.event_secret), event(settings.bucket, "inbox/m/a.txt")
    holder = sqlite3.connect(settings.home / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        started = time.monotonic()
        answer = httpx.post(url, json=body, timeout=10)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert time.monotonic() - started < 3.0  # versitygw does not wait longer
        assert answers(events_url.replace("/events", "/healthz"))
        assert holder.execute("SELECT count(*) FROM wakeups").fetchone() == (0,)
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    assert httpx.post(url, json=body, timeout=10).status_code == 204
    assert set(woken(ledger)) == {"inbox/m/a.txt"}
    (good,) = doctor._events(listening)
    assert good.ok
    (other,) = doctor._events(listening.model_copy(update={"webhook_secret": "wh-another"}))
    assert (other.ok, "another secret" in other.detail) == (False, True)


def test_doctor_says_that_nobody_answers(listening: Settings) -> None:
    (away,) = doctor._events(listening)
    assert (away.ok, "tidemill up" in (away.remedy or "")) == (False, True)
