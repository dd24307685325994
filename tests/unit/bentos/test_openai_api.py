from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.testclient import TestClient

from bentos.decoder import GRAPH, Decoder
from bentos.engine import Engine
from bentos.openai_api import MAX_BODY_BYTES, add_routes
from bentos.openai_types import ChatRequest
from bentos.replica import Replica
from bentos.serving_config import ServingConfig, ServingSettings
from bentos.serving_metrics import ServingMetrics
from bentos.text import TextCodec
from lake.records import PredictionLog

CONTEXT = 512
HELLO = [{"role": "user", "content": "Hello"}]


@dataclass
class Rows:
    """Takes what the prediction log would."""

    taken: list[PredictionLog] = field(default_factory=list)

    def record(self, row: PredictionLog) -> None:
        self.taken.append(row)


class Gate:
    """Lets a test hold the engine up between two steps."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.open.set()

    def stepped(self, n_rows: int) -> None:
        self.entered.set()
        assert self.open.wait(60)

    def prefilled(self, n_tokens: int, n_reused: int) -> None:
        """Nothing to hold up."""


@dataclass
class Server:
    replica: Replica
    rows: Rows
    gate: Gate
    registry: CollectorRegistry
    app: Starlette

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, {"model": "tiny", "version": "v1", **labels}) or 0.0


@pytest.fixture
def server(served_folder: Path) -> Iterator[Server]:
    gate, rows, registry = Gate(), Rows(), CollectorRegistry()
    config = ServingConfig(model="tiny", version="v1", log_share=1.0, created=1_700_000_000)
    decoder = Decoder(served_folder / GRAPH, n_slots=1, context_length=CONTEXT, n_threads=1)
    engine = Engine(decoder, TextCodec(served_folder), end_tokens=(), max_waiting=1, observer=gate)
    metrics = ServingMetrics("tiny", "v1", registry)
    replica = Replica(config, engine, metrics, rows, decoder.vocabulary)  # type: ignore[arg-type]
    app = Starlette()
    add_routes(app, replica)
    yield Server(replica, rows, gate, registry, app)
    gate.open.set()
    engine.close()


@pytest.fixture
def client(server: Server) -> Iterator[TestClient]:
    with TestClient(server.app) as opened:
        yield opened


def chat(client: TestClient, **more: Any) -> httpx.Response:
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 5, "temperature": 0, **more}
    return client.post("/v1/chat/completions", json=body)


def complete(client: TestClient, **more: Any) -> httpx.Response:
    body = {"model": "tiny", "prompt": "Hello", "max_tokens": 5, "temperature": 0, **more}
    return client.post("/v1/completions", json=body)


def events(answer: httpx.Response) -> list[Any]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def error(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    body = answer.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    return answer.status_code, body["code"], body["param"]


def test_a_chat_answer_has_openais_shape(client: TestClient) -> None:
    body = chat(client).json()

    choice = body["choices"][0]
    assert body["object"] == "chat.completion"
    assert body["model"] == "tiny:v1"
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["finish_reason"] == "length"
    usage = body["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5


def test_a_stream_tells_the_same_as_the_whole(client: TestClient) -> None:
    whole = chat(client, max_tokens=30).json()

    told = events(chat(client, max_tokens=30, stream=True))

    assert told[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    pieces = [event["choices"][0]["delta"].get("content", "") for event in told]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert [event["choices"][0]["finish_reason"] for event in told] == [None] * (len(told) - 1) + ["length"]
    assert {event["id"] for event in told} == {told[0]["id"]}
    assert all("usage" not in event for event in told)


def test_usage_comes_last_in_a_stream_that_asks_for_it(client: TestClient) -> None:
    told = events(chat(client, stream=True, stream_options={"include_usage": True}))

    assert told[-1]["choices"] == []
    assert told[-1]["usage"]["completion_tokens"] == 5
    assert all(event["usage"] is None for event in told[:-1])


def test_completions_take_a_text_a_list_of_one_or_tokens(client: TestClient, server: Server) -> None:
    tokens = server.replica.engine.codec.encode("Hello")

    answers = [complete(client, prompt=prompt).json() for prompt in ("Hello", ["Hello"], tokens)]

    assert len({answer["choices"][0]["text"] for answer in answers}) == 1
    assert [row.prompt for row in server.rows.taken] == ["Hello"] * 3
    told = events(complete(client, stream=True))
    assert "".join(event["choices"][0]["text"] for event in told) == answers[0]["choices"][0]["text"]


def test_model_with_and_without_its_version(client: TestClient) -> None:
    assert chat(client, model="tiny:v1").status_code == 200
    assert error(chat(client, model="tiny:v2")) == (404, "model_not_found", "model")
    assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["tiny"]
    assert client.get("/v1/models/tiny").json()["created"] == 1_700_000_000
    assert error(client.get("/v1/models/huge")) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"n": 2}, "invalid_value", "n"),
        ({"temperature": 2.5}, "invalid_value", "temperature"),
        ({"top_p": 0}, "invalid_value", "top_p"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": None}, "invalid_value", "messages"),
        ({"messages": [{"role": "pirate", "content": "x"}]}, "invalid_value", "messages.0.role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "invalid_value",
            "messages.0.content.0.type",
        ),
        ({"stop": ["a", "b", "c", "d", "e"]}, "invalid_value", "stop"),
        ({"tools": []}, "unsupported_parameter", "tools"),
        ({"top_k": 5}, "unknown_parameter", "top_k"),
        ({"logprobs": True}, "invalid_value", "logprobs"),
        ({"response_format": {"type": "json_object"}}, "invalid_value", "response_format.type"),
        ({"max_tokens": CONTEXT}, "context_length_exceeded", "messages"),
    ],
)
def test_what_cannot_be_done_is_refused_naming_the_parameter(
    client: TestClient, server: Server, more: dict[str, Any], code: str, param: str
) -> None:
    assert error(chat(client, **more)) == (400, code, param)
    assert [row.status for row in server.rows.taken] == [400]


@pytest.mark.parametrize(
    ("prompt", "code"),
    [("", "invalid_value"), ([1, 5_000], "invalid_value"), (["a", "b"], "invalid_value"), ([], "invalid_value")],
)
def test_prompts_that_are_none_are_refused(client: TestClient, prompt: Any, code: str) -> None:
    assert error(complete(client, prompt=prompt))[:2] == (400, code)


def test_a_missing_field_a_broken_body_and_a_huge_one(client: TestClient) -> None:
    path = "/v1/chat/completions"

    assert error(client.post(path, json={"messages": HELLO})) == (400, "missing_required_parameter", "model")
    assert error(client.post(path, content=b'{"model": "ti')) == (400, "invalid_json", None)
    assert error(client.post(path, content=rb'{"model": "\ud800"}')) == (400, "invalid_json", None)  # half a character
    assert error(client.post(path, content=b" " * (MAX_BODY_BYTES + 1))) == (413, "request_too_large", None)
    assert error(client.get(path)) == (404, "unknown_url", None)
    assert error(client.post("/v1/embeddings", json={})) == (404, "unknown_url", None)


def test_the_context_limits_what_is_generated_by_default(client: TestClient) -> None:
    body = chat(client, max_tokens=None, messages=[{"role": "user", "content": "word " * 150}]).json()

    assert body["usage"]["total_tokens"] <= CONTEXT
    assert body["usage"]["completion_tokens"] == CONTEXT - body["usage"]["prompt_tokens"]


def test_messages_in_parts_and_of_developers(client: TestClient, server: Server) -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]

    plain = chat(client, messages=[{"role": "system", "content": "Be"}, *HELLO]).json()
    split = chat(client, messages=[{"role": "developer", "content": "Be"}, {"role": "user", "content": parts}]).json()

    assert plain["choices"] == split["choices"]


def test_null_is_as_good_as_nothing(client: TestClient) -> None:
    nothing = ("tools", "logit_bias", "stop", "n", "seed", "top_p", "logprobs", "response_format", "stream", "user")

    assert chat(client, **dict.fromkeys(nothing)).status_code == 200


def test_every_answer_enters_the_log(client: TestClient, server: Server) -> None:
    history = [*HELLO, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "How are you?"}]
    headers = {"x-request-id": "abc-1", "x-tidemill-shadow": "true"}
    body = {"model": "tiny", "messages": history, "max_tokens": 4, "temperature": 0}

    answer = client.post("/v1/chat/completions", json=body, headers=headers).json()
    chat(client, stream=True)

    whole, streamed = server.rows.taken
    assert (whole.request_id, whole.model, whole.version, whole.shadow) == ("abc-1", "tiny", "v1", True)
    assert (whole.prompt, whole.status) == ("How are you?", 200)  # what the user said last
    assert whole.response == answer["choices"][0]["message"]["content"]
    assert (whole.n_prompt_tokens, whole.n_response_tokens) == (answer["usage"]["prompt_tokens"], 4)
    assert whole.latency_ms > 0
    assert (streamed.prompt, streamed.status, streamed.shadow) == ("Hello", 200, False)
    assert streamed.request_id != whole.request_id


def test_injected_errors_are_a_share_of_the_requests(client: TestClient, server: Server) -> None:
    server.replica.serving, server.replica.draw = ServingSettings(inject_error_rate=0.5), random.Random(3)

    statuses = [chat(client, max_tokens=1).status_code for _ in range(40)]

    assert set(statuses) == {200, 500}
    assert 10 <= statuses.count(500) <= 30
    server.replica.serving = ServingSettings(inject_error_rate=1.0)
    assert error(chat(client)) == (500, "injected_error", None)


def test_too_many_requests_are_told_when_to_come_back(client: TestClient, server: Server) -> None:
    server.gate.open.clear()
    waiting = [threading.Thread(target=chat, args=(client,)) for _ in range(2)]  # one runs, one waits
    waiting[0].start()
    assert server.gate.entered.wait(60)
    waiting[1].start()
    while server.replica.engine.n_waiting == 0:
        assert waiting[1].is_alive()

    refused = chat(client)
    server.gate.open.set()
    for thread in waiting:
        thread.join(60)

    assert error(refused) == (429, "queue_full", None)
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.headers["retry-after"] == "1"
    assert sorted(row.status for row in server.rows.taken) == [200, 200, 429]


def test_metrics_count_answers_and_times(client: TestClient, server: Server) -> None:
    chat(client)
    chat(client, n=2)

    assert server.metric("tidemill_answers_total", status="200") == 1
    assert server.metric("tidemill_answers_total", status="400") == 1
    assert server.metric("tidemill_first_token_seconds_count") == 1


def test_a_server_that_is_shutting_down_says_so(client: TestClient, server: Server) -> None:
    server.replica.engine.close()

    assert error(chat(client)) == (503, "unavailable", None)


def test_a_failing_generation_is_a_server_error(
    client: TestClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(server.replica.engine._decoder, "step", fail)

    assert error(chat(client)) == (500, "internal_error", None)
    streamed = chat(client, stream=True)
    assert json.loads(streamed.text.split("\n\n")[-2].removeprefix("data: "))["error"]["code"] == "internal_error"
    assert [row.status for row in server.rows.taken] == [500, 500]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_generation(server: Server, stream: bool) -> None:
    """Driven by hand: the client closes its connection while the engine is between two steps."""
    body = json.dumps({"model": "tiny", "messages": HELLO, "max_tokens": 400, "temperature": 0, "stream": stream})
    sent: list[dict[str, Any]] = []

    async def leave_in_between() -> None:
        left = asyncio.Event()
        incoming = [{"type": "http.request", "body": body.encode(), "more_body": False}]

        async def receive() -> dict[str, Any]:
            if incoming:
                return incoming.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        server.gate.open.clear()
        request = asyncio.create_task(server.app(_scope(), receive, send))
        assert await asyncio.to_thread(server.gate.entered.wait, 60)
        left.set()
        await asyncio.sleep(0.05)  # the watcher runs
        server.gate.open.set()
        await asyncio.wait_for(request, 60)

    asyncio.run(leave_in_between())

    (row,) = server.rows.taken
    assert row.status == 499
    assert 1 <= row.n_response_tokens < 10
    assert server.replica.engine.n_running == 0
    assert not any(b"[DONE]" in message.get("body", b"") for message in sent)


def _scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }


@pytest.mark.parametrize(
    ("headers", "model", "logged"),
    [
        ({}, "tiny", ("", False)),
        ({"x-user": " ann "}, "tiny", ("ann", False)),
        ({"cookie": "a=b; tidemill-user=joe"}, "tiny", ("joe", False)),
        ({"x-user": "ann", "cookie": "tidemill-user=joe"}, "tiny", ("ann", False)),
        ({"x-user": "x" * 5_000}, "tiny", ("x" * 256, False)),
        ({"cookie": "; =;tidemill-user"}, "tiny", ("", False)),
        ({"x-tidemill-version": "v1"}, "tiny", ("", True)),
        ({}, "tiny:v1", ("", True)),
    ],
)
def test_the_row_tells_the_user_and_whether_the_version_was_asked_for(
    server: Server, client: TestClient, headers: dict[str, str], model: str, logged: tuple[str, bool]
) -> None:
    body = {"model": model, "messages": HELLO, "max_tokens": 1}
    assert client.post("/v1/chat/completions", json=body, headers=headers).status_code == 200
    (row,) = server.rows.taken
    assert (row.user, row.pinned) == logged


def test_a_replica_may_have_defaults_of_its_own_for_what_a_request_leaves_open(
    server: Server, client: TestClient
) -> None:
    server.replica.serving = ServingSettings(temperature=0.0, max_tokens=3)
    first = chat(client, temperature=None, max_tokens=None).json()
    assert first["usage"]["completion_tokens"] == 3
    assert complete(client, temperature=None, max_tokens=None).json()["usage"]["completion_tokens"] == 3
    again = chat(client, temperature=None, max_tokens=None).json()
    assert again["choices"][0]["message"] == first["choices"][0]["message"]  # of temperature 0
    assert chat(client, max_tokens=5).json()["usage"]["completion_tokens"] == 5


def test_what_a_request_says_of_sampling_counts(client: TestClient) -> None:
    serving = ServingSettings(temperature=0.3, top_p=0.8)
    open_one = ChatRequest.model_validate({"model": "tiny", "messages": HELLO})
    assert (open_one.sampling(serving).temperature, open_one.sampling(serving).top_p) == (0.3, 0.8)
    said = ChatRequest.model_validate({"model": "tiny", "messages": HELLO, "temperature": 0, "top_p": 0.5})
    assert (said.sampling(serving).temperature, said.sampling(serving).top_p) == (0, 0.5)
    assert open_one.sampling(ServingSettings()).temperature == 1.0


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_replicas_system_prompt_is_for_chats_that_bring_none(server: Server, client: TestClient, role: str) -> None:
    plain = chat(client).json()["usage"]["prompt_tokens"]
    own = [{"role": role, "content": "Speak like a pirate."}, *HELLO]
    with_own = chat(client, messages=own).json()["usage"]["prompt_tokens"]
    server.replica.serving = ServingSettings(system_prompt="Answer%20in%20one%20sentence%2C%20for%20%24USD.")
    assert server.replica.serving.system_prompt == "Answer in one sentence, for $USD."
    told = [{"role": "system", "content": "Answer in one sentence, for $USD."}, *HELLO]
    with_ours = chat(client).json()["usage"]["prompt_tokens"]
    assert with_ours > plain
    assert with_ours == chat(client, messages=told).json()["usage"]["prompt_tokens"]
    assert chat(client, messages=own).json()["usage"]["prompt_tokens"] == with_own
    assert server.rows.taken[-2].prompt == "Hello"  # what the user said, as before
