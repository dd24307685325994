from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from bentos.health import (
    MAX_DEATHS_BEFORE_READY,
    MAX_REFUSED,
    MAX_SILENCE_S,
    READY_TIMEOUT_S,
    Health,
    Probe,
    probe,
)
from tests.ports import free_ports


def seen(health: Health, probes: list[Probe], identity: str | None = "7", from_s: float = 0.0) -> tuple[Health, float]:
    """After one look a second."""
    now_s = from_s
    for each in probes:
        now_s += 1
        health = health.seen(each, identity, now_s)
    return health, now_s


def test_a_replica_may_take_its_time_to_start() -> None:
    health, now_s = seen(Health(since_s=0), ["refused"] * 20 + ["slow"] * 20)
    assert health.verdict(now_s)[0] == "starting"
    assert health.seen("ready", "7", now_s).verdict(now_s)[0] == "ready"
    late_s = READY_TIMEOUT_S + 1
    assert health.seen("slow", "7", late_s).verdict(late_s)[0] == "gone"


def test_a_process_that_keeps_dying_is_not_waited_for() -> None:
    health = Health(since_s=0)
    for pid in range(MAX_DEATHS_BEFORE_READY):
        health = health.seen("refused", str(pid), 1)
    assert health.verdict(1)[0] == "starting"
    assert health.seen("refused", str(MAX_DEATHS_BEFORE_READY), 2).verdict(2)[0] == "gone"


def test_a_process_that_dies_before_it_is_met_is_not_waited_for() -> None:
    health, now_s = seen(Health(since_s=0), ["refused"] * (MAX_DEATHS_BEFORE_READY - 1), identity=None)
    assert health.verdict(now_s)[0] == "starting"
    assert health.seen("refused", None, now_s).verdict(now_s)[0] == "gone"


def test_slow_answers_while_all_cores_compute_are_no_death() -> None:
    health, now_s = seen(Health(since_s=0), ["ready", *["slow"] * 20])
    assert health.verdict(now_s)[0] == "ready"
    late_s = 1 + MAX_SILENCE_S + 1
    assert health.seen("slow", "7", late_s).verdict(late_s)[0] == "gone"


def test_refusals_in_a_row_are_death_single_ones_are_not() -> None:
    health, now_s = seen(Health(since_s=0), ["ready", *["refused"] * (MAX_REFUSED - 1), "ready", "refused"])
    assert health.verdict(now_s)[0] == "ready"
    health, now_s = seen(health, ["refused"] * (MAX_REFUSED - 1), from_s=now_s)
    assert health.verdict(now_s)[0] == "gone"


def test_another_process_means_that_the_first_died() -> None:
    health, now_s = seen(Health(since_s=0), ["ready"])
    assert health.seen("ready", "8", now_s).verdict(now_s) == ("gone", "its process died")


class _Answers(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(params=[200, 503])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    handler = type("_Handler", (_Answers,), {"status": request.param})
    with HTTPServer(("127.0.0.1", 0), handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield request.param, made.server_port
        made.shutdown()
        thread.join()


def test_only_a_200_is_ready(server: tuple[int, int]) -> None:
    status, port = server
    assert probe(port) == ("ready" if status == 200 else "refused")


def test_nobody_there_is_a_refusal() -> None:
    assert probe(free_ports(1)[0]) == "refused"


def test_where_nobody_could_look_nothing_is_concluded() -> None:
    """The supervisor was away for minutes: that says nothing of the replica."""
    health, now_s = seen(Health(since_s=0), ["ready"])
    assert health.verdict(now_s + 600)[0] == "ready"
    starting = Health(since_s=0).seen("refused", "7", 1.0)
    assert starting.verdict(1_000)[0] == "starting"
    assert health.seen("slow", "7", now_s + 600).verdict(now_s + 600)[0] == "gone"
