"""The webhook's answers: who may say something, what is taken, and when it may not be said to have been taken."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from flows import webhook
from lake.notification import MAX_BYTES

SECRET = "wh-a-secret-of-tests-ümläut"
EVENT = {"Records": [{"s3": {"bucket": {"name": "tidemill"}, "object": {"key": "inbox/m/a+b.txt"}}}]}
BODY = json.dumps(EVENT).encode()


class Wakeups:
    """Stands in for the ledger's: keeps what it is given, or fails as a database does."""

    def __init__(self) -> None:
        self.recorded: list[tuple[str, str]] = []
        self.away = False

    def record(self, named: Iterable[tuple[str, str]], source: str) -> None:
        if self.away:
            raise OperationalError("INSERT …", {}, Exception("database is locked"))
        assert source == "webhook"
        self.recorded += named


@pytest.fixture
def wakeups() -> Wakeups:
    return Wakeups()


@pytest.fixture
def client(wakeups: Wakeups) -> TestClient:
    handlers = webhook.Webhook(SimpleNamespace(wakeups=wakeups), "tidemill", SECRET)  # type: ignore[arg-type]
    return TestClient(Starlette(routes=[Route("/events", handlers.events, methods=["POST", "GET"])]))


def bearer(secret: str) -> dict[str, Any]:
    return {"authorization": f"Bearer {secret}".encode()}


def basic(secret: str, user: str = "tidemill") -> dict[str, Any]:
    return {"authorization": b"Basic " + base64.b64encode(f"{user}:{secret}".encode())}


def signed(secret: str, body: bytes = BODY) -> dict[str, Any]:
    return {"x-tidemill-signature": f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"}


KNOWN = {
    "bearer": bearer(SECRET),
    "bearer in another case": {"authorization": f"bearer  {SECRET}".encode()},
    "the token alone": {"authorization": SECRET.encode()},
    "basic": basic(SECRET),
    "basic without a user": basic(SECRET, user=""),
    "signature": signed(SECRET),
    "signature in capitals": {"x-tidemill-signature": signed(SECRET)["x-tidemill-signature"].upper()},
}
UNKNOWN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "another bearer": bearer("wh-another"),
    "an empty bearer": {"authorization": "Bearer "},
    "an empty header": {"authorization": ""},
    "another basic": basic("wh-another"),
    "the secret as user": {"authorization": b"Basic " + base64.b64encode(f"{SECRET}:".encode())},
    "no base64": {"authorization": "Basic ="},
    "bytes": {"authorization": b"Bearer \xff\xfe"},
    "a signature with another secret": signed("wh-another"),
    "a signature of another body": signed(SECRET, b"{}"),
    "no signature": {"x-tidemill-signature": ""},
    "bytes as signature": {"x-tidemill-signature": b"sha256=\xff"},
}


@pytest.mark.parametrize("sender", KNOWN)
def test_who_knows_the_secret_is_heard(client: TestClient, wakeups: Wakeups, sender: str) -> None:
    answer = client.post("/events", content=BODY, headers=KNOWN[sender])
    assert (answer.status_code, answer.content) == (204, b"")
    assert wakeups.recorded == [("tidemill", "inbox/m/a b.txt")]


@pytest.mark.parametrize("sender", UNKNOWN)
def test_who_does_not_is_refused_and_told_how(client: TestClient, wakeups: Wakeups, sender: str) -> None:
    answer = client.post("/events", content=BODY, headers=UNKNOWN[sender])
    assert answer.status_code == 401
    assert "secret" in answer.json()["error"]
    assert SECRET not in answer.text
    assert wakeups.recorded == []


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_store_may_look_whether_somebody_is_there(client: TestClient, method: str) -> None:
    assert client.request(method, "/events", headers=bearer(SECRET)).status_code == 204
    assert client.request(method, "/events", headers=bearer("wh-another")).status_code == 401
    assert client.request(method, "/events", headers=signed(SECRET, b"")).status_code == 401


def test_what_is_no_event_is_said_to_be_none(client: TestClient, wakeups: Wakeups) -> None:
    answer = client.post("/events", content=b'{"Records": 1}', headers=bearer(SECRET))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("event, Records: expected a list, got int")
    assert wakeups.recorded == []


def test_a_body_larger_than_any_event_is_not_read_to_its_end(client: TestClient) -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while taken < 50 * MAX_BYTES:
            taken += 100_000
            yield b" " * 100_000

    assert client.post("/events", content=endless(), headers=bearer(SECRET)).status_code == 413


def test_other_buckets_and_prefixes_wake_nobody(client: TestClient, wakeups: Wakeups) -> None:
    for bucket, key in (("other", "inbox/m/a"), ("tidemill", "models/m/v1/onnx/model.onnx")):
        event = {"Records": [{"s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]}
        assert client.post("/events", json=event, headers=bearer(SECRET)).status_code == 204
    assert wakeups.recorded == []


def test_nothing_is_said_to_be_taken_that_is_not_recorded(
    client: TestClient, wakeups: Wakeups, caplog: pytest.LogCaptureFixture
) -> None:
    wakeups.away = True
    for _ in range(3):
        answer = client.post("/events", content=BODY, headers=bearer(SECRET))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert [record.message for record in caplog.records] == [
        "the ledger cannot be written: Exception database is locked"
    ]
    wakeups.away = False
    assert client.post("/events", content=BODY, headers=bearer(SECRET)).status_code == 204
    assert wakeups.recorded == [("tidemill", "inbox/m/a b.txt")]


def test_what_comes_while_the_disk_is_busy_shares_the_next_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[list[tuple[str, str]]] = []
    entered, free = threading.Event(), threading.Event()

    def record(named: Iterable[tuple[str, str]], source: str) -> None:
        entered.set()
        assert free.wait(10)
        written.append(list(named))

    async def senders() -> None:
        recorder = webhook.Recorder(SimpleNamespace(wakeups=SimpleNamespace(record=record)))  # type: ignore[arg-type]
        first = asyncio.create_task(recorder.record([("t", "inbox/m/0")]))
        while not entered.is_set():
            await asyncio.sleep(0)
        others = [asyncio.create_task(recorder.record([("t", f"inbox/m/{i % 10}")])) for i in range(1, 50)]
        await asyncio.sleep(0)
        assert not first.done()
        free.set()
        await asyncio.gather(first, *others)
        await recorder.record([])

    asyncio.run(senders())
    assert [len(batch) for batch in written] == [1, 10]  # each key once


def test_who_has_been_refused_is_not_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "RECORD_WITHIN_S", 0.05)
    written: list[tuple[str, str]] = []
    free = threading.Event()

    def record(named: Iterable[tuple[str, str]], source: str) -> None:
        assert free.wait(10)
        written.extend(named)

    async def senders() -> None:
        recorder = webhook.Recorder(SimpleNamespace(wakeups=SimpleNamespace(record=record)))  # type: ignore[arg-type]
        sent = [asyncio.create_task(recorder.record([("t", f"inbox/m/{name}")])) for name in ("a", "b", "c")]
        await asyncio.sleep(0)
        late = asyncio.create_task(recorder.record([("t", "inbox/m/late")]))
        answers = await asyncio.gather(*sent, late, return_exceptions=True)
        assert [type(answer) for answer in answers] == [TimeoutError] * 4
        free.set()
        await recorder.record([("t", "inbox/m/again")])

    asyncio.run(senders())
    assert ("t", "inbox/m/late") not in written
    assert written[-1] == ("t", "inbox/m/again")


def test_without_a_port_it_says_which_setting_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    monkeypatch.delenv("TIDEMILL_WEBHOOK_PORT", raising=False)
    with pytest.raises(SystemExit, match="TIDEMILL_WEBHOOK_PORT"):
        webhook.main()
