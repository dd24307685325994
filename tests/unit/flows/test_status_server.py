from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import httpx
import psutil
import pytest
from starlette.testclient import TestClient

from flows import status_server
from flows.processes import environment
from flows.status_server import LookBooks, application
from lake.ledger import Ledger
from lake.settings import Settings
from tests.rollout_story import BEGIN, Story, promoted, rolled_back, under_way


@pytest.fixture
def client(settings: Settings, ledger: Ledger) -> Iterator[TestClient]:
    with TestClient(application(settings), base_url="http://127.0.0.1:8090") as opened:
        yield opened


def test_the_first_page_shows_models_rollouts_and_alarms(client: TestClient, ledger: Ledger) -> None:
    promoted(ledger)
    under_way(ledger, challenger="v3", champion="v2", began=BEGIN + timedelta(hours=1))
    ledger.alarms.raised("controller", "no sign of life")
    page = client.get("/").text
    assert 'href="/rollouts/docs-v2-1"' in page and 'href="/rollouts/docs-v3-1"' in page
    assert "v3: canary 75%" in page and "promoted" in page
    assert "controller: no sign of life" in page and 'role="alert"' in page
    assert page.index("docs-v3-1</a></td>") < page.index("docs-v2-1</a></td>")  # the newest first
    assert page.count("<rect") >= 6  # a bar's stages


def test_an_empty_installation_has_a_page(client: TestClient) -> None:
    page = client.get("/").text
    assert "No version of any model yet" in page and "No rollout yet" in page


def test_a_rollouts_page_has_a_plot_for_every_check(client: TestClient, ledger: Ledger) -> None:
    state = rolled_back(ledger)
    page = client.get("/rollouts/docs-v2-1").text
    for check in state.plan.checks:
        assert f"<strong>{check.metric}</strong>" in page
    assert page.count('<figure class="plot') == 2 + len(state.plan.checks)
    assert '<figure class="plot worse">' in page and "WORSE: rolls back" in page
    assert page.count('class="band"') == len(state.plan.checks)
    assert "data-ended" in page
    numbers = [float(n) for points in re.findall(r'points="([^"]+)"', page) for n in re.split("[ ,]", points)]
    assert len(numbers) > 100 and all(0 <= number <= 340 for number in numbers)


def test_one_that_waits_has_a_page_and_is_refreshed(client: TestClient, ledger: Ledger) -> None:
    Story(ledger).begun()
    page = client.get("/rollouts/docs-v2-1").text
    assert "waiting for the challenger to be ready" in page and "data-ended" not in page


def test_json_beside_the_pages(client: TestClient, ledger: Ledger) -> None:
    under_way(ledger)
    told = client.get("/api/rollouts/docs-v2-1").json()
    assert told["state"] == "running" and told["looks"] and told["checks"]
    index = client.get("/api/rollouts").json()
    assert index["rollouts"][0]["rollout_id"] == "docs-v2-1"
    assert index["models"] == [
        {"model": "docs", "champion": "v1", "live_at": index["models"][0]["live_at"], "rollout": "docs-v2-1"}
    ]


def test_nothing_that_a_process_has_said_is_markup(client: TestClient, ledger: Ledger) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    story = Story(ledger).begun().enter(0).look(10)
    story.end("rolled_back", evil)
    ledger.alarms.raised(evil, evil)
    for path in ("/", "/rollouts/docs-v2-1"):
        page = client.get(path).text
        assert "<script>alert" not in page and "<img" not in page
        assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in client.get("/rollouts/%3Cscript%3Ealert(1)%3C%2Fscript%3E").text


def test_no_other_name_than_this_machines_own(client: TestClient) -> None:
    """A page elsewhere that rebinds its name to 127.0.0.1 comes with its own name in Host."""
    for host in ("evil.example", "evil.example:8090", "127.0.0.1.evil.example", ""):
        assert client.get("/", headers={"host": host}).status_code == 400
        assert client.get("/api/rollouts", headers={"host": host}).status_code == 400
    for host in ("127.0.0.1:8090", "localhost:8090", "localhost"):
        assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/rollouts/docs-v2-1", "/api/rollouts", "/metrics", "/assets/status.js"])
def test_it_only_answers_questions(client: TestClient, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, path).status_code == 405


@pytest.mark.parametrize("path", ["/", "/nothing", "/healthz", "/assets/status.css", "/rollouts/docs-v9-1"])
def test_every_answer_forbids_what_it_does_not_need(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'; script-src 'self';")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


def test_the_pages_need_nothing_that_their_policy_forbids(client: TestClient, ledger: Ledger) -> None:
    """No inline style or script, nothing from elsewhere: it works without a network."""
    under_way(ledger)
    for path in ("/", "/rollouts/docs-v2-1"):
        page = client.get(path).text
        assert not re.search(r"\sstyle=|\son\w+=|<style|https?://", page)
        sources = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert all(source.startswith("/") or source == "data:," for source in sources)
        for source in sources:
            if source.startswith("/assets/"):
                assert client.get(source).status_code == 200


def test_unknown_things_are_refused(client: TestClient) -> None:
    assert client.get("/rollouts/docs-v9-1").status_code == 404
    assert client.get("/api/rollouts/docs-v9-1").json() == {"error": "no rollout by this id"}
    for path in ("/assets/../status_server.py", "/assets/..%2fstatus_server.py", "/assets/page.html"):
        assert client.get(path).status_code == 404


def test_a_ledger_that_is_away_is_no_traceback(settings: Settings) -> None:
    broken = settings.model_copy(update={"database_url": "postgresql://user:hidden@127.0.0.1:1/none"})
    with TestClient(application(broken), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        answer = client.get("/api/rollouts")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "hidden" not in answer.text and "default-src 'none'" in answer.headers["content-security-policy"]
        assert client.get("/").status_code == 503
        assert client.get("/healthz").json() == {"status": "ok"}


def test_no_secret_is_on_any_page(client: TestClient, settings: Settings, ledger: Ledger) -> None:
    under_way(ledger)
    for path in ("/", "/rollouts/docs-v2-1", "/api/rollouts", "/api/rollouts/docs-v2-1", "/metrics"):
        text = client.get(path).text
        assert settings.gateway_api_key not in text and str(settings.secret_access_key) not in text


def test_metrics_for_alerts(client: TestClient, ledger: Ledger) -> None:
    under_way(ledger)
    ledger.alarms.raised("controller", "no sign of life")
    told = client.get("/metrics").text
    assert "tidemill_alarms_open 1.0" in told
    assert 'tidemill_rollout_share{challenger="v2",model="docs",stage="canary"} 0.75' in told


def test_looks_are_read_once_and_then_the_last(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    story, books = under_way(ledger), LookBooks(ledger)
    read: list[str] = []
    real = ledger.rollout_looks.of
    monkeypatch.setattr(ledger.rollout_looks, "of", lambda rollout_id: read.append(rollout_id) or real(rollout_id))
    n_looks = len(books.of("docs-v2-1"))
    story.look(5)
    assert len(books.of("docs-v2-1")) == n_looks + 1 == len(books.of("docs-v2-1"))
    assert len(read) == 1
    monkeypatch.setattr(status_server, "READ_ALL_AFTER_S", -1.0)
    story.look(10)
    assert len(books.of("docs-v2-1")) == n_looks + 3
    assert len(read) == 2
    for number in range(20):
        books.of(f"other-{number}")
    assert len(books._books) == status_server.KEPT_BOOKS


def test_the_process_is_light_and_on_loopback_alone(settings: Settings, ledger: Ledger) -> None:
    """As the supervisor starts it. Nothing that trains, serves, draws or orchestrates is imported."""
    under_way(ledger)
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.status_server"],
        env=environment(settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        page = _answer(f"{settings.status_url}/rollouts/docs-v2-1", process)
        assert "canary 75%" in page
        (listening,) = [c for c in psutil.Process(process.pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert listening.laddr.ip == "127.0.0.1"
        assert psutil.Process(process.pid).memory_info().rss < 200e6
        with socket.create_connection(("127.0.0.1", settings.status_port)) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 400")
    finally:
        process.terminate()
        process.wait(10)
    heavy = "import sys, flows.status_server; print([m for m in sys.argv[1:] if m in sys.modules])"
    names = ["matplotlib", "prefect", "torch", "boto3", "apache_beam", "bentoml", "pandas"]
    done = subprocess.run([sys.executable, "-c", heavy, *names], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _answer(url: str, process: subprocess.Popen[bytes]) -> str:
    for _ in range(600):
        assert process.poll() is None
        try:
            return httpx.get(url).raise_for_status().text
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("no answer")
