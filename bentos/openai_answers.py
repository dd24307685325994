"""Answers in OpenAI's shapes, whole and in chunks."""

from __future__ import annotations

import time
import uuid
from typing import Any, Protocol

from bentos.exchange import Exchange
from bentos.serving_config import ServingConfig

Json = dict[str, Any]


class Answer(Protocol):
    """One answer in the making. Chunks carry `"usage": null` when usage was asked for: it comes in the last one."""

    def whole(self, finish: str) -> Json: ...

    def opening(self, with_usage: bool) -> Json | None: ...

    def delta(self, text: str, with_usage: bool) -> Json: ...

    def closing(self, finish: str, with_usage: bool) -> Json: ...

    def usage_chunk(self) -> Json: ...


class _Envelope:
    """What every object of one answer begins with."""

    def __init__(self, config: ServingConfig, exchange: Exchange, prefix: str) -> None:
        self._exchange = exchange
        self._head: Json = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": config.tag,
            "system_fingerprint": f"{config.model}/{config.version}",
        }

    def _wrapped(self, kind: str, choices: list[Json], with_usage: bool = False) -> Json:
        return {**self._head, "object": kind, "choices": choices, **({"usage": None} if with_usage else {})}

    def _usage(self) -> Json:
        n_prompt, n_response = self._exchange.n_prompt_tokens, self._exchange.n_response_tokens
        return {"prompt_tokens": n_prompt, "completion_tokens": n_response, "total_tokens": n_prompt + n_response}


class ChatAnswer(_Envelope):
    """`chat.completion` and `chat.completion.chunk`"""

    def __init__(self, config: ServingConfig, exchange: Exchange) -> None:
        super().__init__(config, exchange, "chatcmpl")

    def whole(self, finish: str) -> Json:
        message = {"role": "assistant", "content": self._exchange.response, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return {**self._wrapped("chat.completion", [choice]), "usage": self._usage()}

    def opening(self, with_usage: bool) -> Json | None:
        return self._chunk({"role": "assistant", "content": ""}, None, with_usage)

    def delta(self, text: str, with_usage: bool) -> Json:
        return self._chunk({"content": text}, None, with_usage)

    def closing(self, finish: str, with_usage: bool) -> Json:
        return self._chunk({}, finish, with_usage)

    def usage_chunk(self) -> Json:
        return {**self._wrapped("chat.completion.chunk", []), "usage": self._usage()}

    def _chunk(self, delta: Json, finish: str | None, with_usage: bool) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._wrapped("chat.completion.chunk", [choice], with_usage)


class CompletionAnswer(_Envelope):
    """`text_completion`, the same object whole and in chunks"""

    def __init__(self, config: ServingConfig, exchange: Exchange) -> None:
        super().__init__(config, exchange, "cmpl")

    def whole(self, finish: str) -> Json:
        return {**self._chunk(self._exchange.response, finish, False), "usage": self._usage()}

    def opening(self, with_usage: bool) -> Json | None:  # noqa: ARG002  (completions have no role to announce)
        return None

    def delta(self, text: str, with_usage: bool) -> Json:
        return self._chunk(text, None, with_usage)

    def closing(self, finish: str, with_usage: bool) -> Json:
        return self._chunk("", finish, with_usage)

    def usage_chunk(self) -> Json:
        return {**self._wrapped("text_completion", []), "usage": self._usage()}

    def _chunk(self, text: str, finish: str | None, with_usage: bool) -> Json:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return self._wrapped("text_completion", [choice], with_usage)


def model_card(config: ServingConfig) -> Json:
    return {
        "id": config.model,
        "object": "model",
        "created": config.created,
        "owned_by": "tidemill",
        "version": config.version,
    }
