"""Business metrics: what is asked, what is taken for an answer, and that trouble is no data."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flows.rollout_business import MAX_ANSWER_BYTES, MAX_VALUES, BusinessMetrics, post, values_of
from flows.rollout_entries import Entries
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.ledger.rollout_state import RolloutState
from lake.recipe import RolloutCheck
from tests.evidence import BEGAN, entered, plan, running_rollout
from tests.ports import free_ports

ORDERS = "business:orders"


class Shop:
    """A server that is asked for values. `answer` is what it says: status and body."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: tuple[int, bytes] = (200, b'{"champion": [1, 2.5], "challenger": 3}')
        self.drip = threading.Event()
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                shop.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                shop.headers.append({name.lower(): value for name, value in self.headers.items()})
                status, body = shop.answer
                self.send_response(status)
                if status == 302:
                    self.send_header("location", "/elsewhere")
                self.end_headers()
                if shop.drip.is_set():
                    while shop.drip.is_set():
                        try:
                            self.wfile.write(b" ")
                            self.wfile.flush()
                        except OSError:
                            return
                        time.sleep(0.02)
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/values?secret=hush"


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.drip.clear()
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def check(shop: Shop) -> RolloutCheck:
    return RolloutCheck(metric=ORDERS, url=shop.url)


@pytest.fixture
def rollout(ledger: Ledger, check: RolloutCheck) -> RolloutState:
    return running_rollout(ledger, plan(check, stage="ab"))


@pytest.fixture
def make(ledger: Ledger, rollout: RolloutState) -> Callable[..., BusinessMetrics]:
    return lambda **more: BusinessMetrics(Entries(ledger.rollout_observations, rollout.rollout_id), **more)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def test_what_is_asked_and_entered(
    ledger: Ledger, rollout: RolloutState, check: RolloutCheck, shop: Shop, make: Callable[..., BusinessMetrics]
) -> None:
    assert make().look(rollout, check, at(10)) == 3
    assert shop.asked == [
        {
            "model": "docs",
            "rollout_id": rollout.rollout_id,
            "stage": "ab",
            "champion": "v1",
            "challenger": "v2",
            "since": at(0).isoformat(),
            "until": at(10).isoformat(),
        }
    ]
    (seen,) = entered(ledger, rollout.rollout_id, ORDERS)
    assert (seen.step_index, seen.champion, seen.challenger) == (0, (1.0, 2.5), (3.0,))


def test_each_time_is_asked_for_once_also_after_a_restart(
    rollout: RolloutState, check: RolloutCheck, shop: Shop, make: Callable[..., BusinessMetrics]
) -> None:
    business = make()
    business.look(rollout, check, at(10))
    business.look(rollout, check, at(20))
    after_restart = make()
    after_restart._entries.refresh()
    after_restart.look(rollout, check, at(30))
    assert [(asked["since"], asked["until"]) for asked in shop.asked] == [
        (at(first).isoformat(), at(first + 10).isoformat()) for first in (0, 10, 20)
    ]


def test_without_values_the_next_question_is_of_the_longer_time(
    ledger: Ledger, rollout: RolloutState, check: RolloutCheck, shop: Shop, make: Callable[..., BusinessMetrics]
) -> None:
    business, answer = make(), shop.answer
    shop.answer = (200, b'{"champion": [], "challenger": []}')
    assert business.look(rollout, check, at(10)) == 0
    shop.answer = (503, b"")
    with pytest.raises(TidemillError):
        business.look(rollout, check, at(20))
    shop.answer = answer
    assert business.look(rollout, check, at(30)) == 3
    assert [asked["since"] for asked in shop.asked] == [at(0).isoformat()] * 3
    assert len(entered(ledger, rollout.rollout_id, ORDERS)) == 1


def test_what_another_process_has_asked_meanwhile_is_not_entered_again(
    ledger: Ledger, rollout: RolloutState, check: RolloutCheck, make: Callable[..., BusinessMetrics]
) -> None:
    one, other = make(), make()
    assert other.look(rollout, check, at(10)) == 3
    assert one.look(rollout, check, at(11)) == 0
    assert len(entered(ledger, rollout.rollout_id, ORDERS)) == 1


def test_a_clock_that_goes_back_asks_nothing(
    rollout: RolloutState, check: RolloutCheck, shop: Shop, make: Callable[..., BusinessMetrics]
) -> None:
    business = make()
    business.look(rollout, check, at(10))
    assert business.look(rollout, check, at(5)) == 0
    assert len(shop.asked) == 1


def test_a_token_is_sent_where_there_is_one(
    rollout: RolloutState, check: RolloutCheck, shop: Shop, make: Callable[..., BusinessMetrics]
) -> None:
    make().look(rollout, check, at(10))
    make(token="hush").look(rollout, check, at(20))
    assert [headers.get("authorization") for headers in shop.headers] == [None, "Bearer hush"]


def test_a_check_is_asked_for_every_interval(shop: Shop, make: Callable[..., BusinessMetrics]) -> None:
    business = make()
    seldom = RolloutCheck(metric=ORDERS, url=shop.url, interval_s=3_600)
    often = RolloutCheck(metric="business:clicks", url=shop.url, interval_s=1e-9)
    assert [business.is_due(seldom), business.is_due(seldom)] == [True, False]
    assert [business.is_due(often), business.is_due(often)] == [True, True]
    assert not business.is_due(RolloutCheck(metric="error_rate"))


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (500, b"", "status 500"),
        (302, b"", "status 302"),
        (204, b"", "status 204"),
        (200, b"", "no JSON"),
        (200, b"<html>", "no JSON"),
        (200, b"\xff\xfe", "no JSON"),
        (200, b"[" * 100_000, "no JSON"),
        (200, b"[1, 2]", "a JSON list"),
        (200, b"{}", "in champion"),
        (200, b'{"champion": 1}', "in challenger"),
        (200, b'{"champion": 1, "challenger": "2"}', "in challenger"),
        (200, b'{"champion": true, "challenger": 1}', "in champion"),
        (200, b'{"champion": [1, null], "challenger": 1}', "in champion"),
        (200, b'{"champion": [[1]], "challenger": 1}', "in champion"),
        (200, b'{"champion": NaN, "challenger": 1}', "in champion"),
        (200, b'{"champion": 1, "challenger": -Infinity}', "in challenger"),
        (200, b'{"champion": 1e999, "challenger": 1}', "in champion"),
        (200, b'{"champion": 1' + b"0" * 400 + b', "challenger": 1}', "in champion"),
        (200, json.dumps({"champion": [1] * (MAX_VALUES + 1), "challenger": 1}).encode(), f"{MAX_VALUES + 1} values"),
        (200, b" " * (MAX_ANSWER_BYTES + 1), "bytes"),
    ],
)
def test_any_other_answer_is_no_data(shop: Shop, status: int, body: bytes, told: str) -> None:
    shop.answer = (status, body)
    with pytest.raises(TidemillError, match=told) as caught:
        values_of(post(shop.url, {}, what=ORDERS, token="hush", timeout_s=10), ORDERS)
    assert "hush" not in str(caught.value)
    assert len(shop.asked) == 1  # and nobody was sent elsewhere


def test_nobody_there_is_no_data() -> None:
    (port,) = free_ports(1)
    with pytest.raises(TidemillError, match="ConnectError") as caught:
        post(f"http://127.0.0.1:{port}/?secret=hush", {}, what=ORDERS, token=None, timeout_s=10)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a:99999999/", "http://\x00/"])
def test_a_url_that_is_none_is_no_data(url: str) -> None:
    with pytest.raises(TidemillError):
        post(url, {}, what=ORDERS, token=None, timeout_s=10)


def test_an_answer_without_an_end_is_given_up(shop: Shop) -> None:
    shop.drip.set()
    with pytest.raises(TidemillError, match=r"no end within 0\.2 s"):
        post(shop.url, {}, what=ORDERS, token=None, timeout_s=0.2)


def test_numbers_and_lists_of_them_are_values() -> None:
    assert values_of(b'{"champion": 2, "challenger": [0.5, -1], "more": {}}', ORDERS) == ([2.0], [0.5, -1.0])
    assert values_of(b'{"champion": [], "challenger": [1]}', ORDERS) == ([], [1.0])
