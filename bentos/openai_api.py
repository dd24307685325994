"""OpenAI's HTTP API over one replica: chat completions, completions and models, streamed or whole."""

from __future__ import annotations

import asyncio
import logging

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bentos.answering import EventStream, answer_whole, refusal
from bentos.engine import EngineStoppedError, QueueFullError
from bentos.exchange import CLIENT_GONE, Exchange, Pieces
from bentos.generation import Prompt
from bentos.openai_answers import ChatAnswer, CompletionAnswer, model_card
from bentos.openai_types import (
    DEFAULT_CHAT_TOKENS,
    DEFAULT_COMPLETION_TOKENS,
    ApiError,
    ChatRequest,
    CompletionRequest,
    explain,
)
from bentos.replica import Replica
from bentos.text import ChatTemplateError

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 2 << 20
RETRY_AFTER_S = 1
# Encoding this much takes about a millisecond; more is done in a thread.
_LONG_TEXT = 4_000


def add_routes(app: Starlette, replica: Replica) -> None:
    """Let an application, made before there was a model, answer for this one."""
    app.state.replica = replica
    app.router.routes.extend(
        [
            Route("/v1/chat/completions", _chat, methods=["POST"]),
            Route("/v1/completions", _completion, methods=["POST"]),
            Route("/v1/models", _models, methods=["GET"]),
            Route("/v1/models/{name}", _model, methods=["GET"]),
            Route("/v1/{rest:path}", _unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]
    )


async def _chat(request: Request) -> Response:
    return await _generate(request, ChatRequest)


async def _completion(request: Request) -> Response:
    return await _generate(request, CompletionRequest)


async def _models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [model_card(request.app.state.replica.config)]})


async def _model(request: Request) -> Response:
    replica: Replica = request.app.state.replica
    try:
        replica.check_model(request.path_params["name"])
    except ApiError as error:
        return refusal(error)
    return JSONResponse(model_card(replica.config))


async def _unknown(request: Request) -> Response:
    return refusal(ApiError(404, f"There is no {request.method} {request.url.path}.", code="unknown_url"))


async def _generate(request: Request, kind: type[ChatRequest] | type[CompletionRequest]) -> Response:
    """Answer one request. It enters the log whatever becomes of it."""
    replica: Replica = request.app.state.replica
    exchange = Exchange(request, replica.config.model, replica.config.version)
    try:
        asked = await _parsed(request, kind)
        replica.check_model(asked.model)
        exchange.pinned |= asked.model == replica.config.tag
        prompt = await _prompt(replica, asked, exchange)
        replica.maybe_fail()
        pieces = Pieces()
        _start(replica, pieces, prompt)
    except ApiError as error:
        replica.finish(exchange, error.status)
        return refusal(error)
    except ClientDisconnect:
        replica.finish(exchange, CLIENT_GONE)
        return Response(status_code=CLIENT_GONE)
    except Exception:
        log.exception("request %s failed", exchange.request_id)
        replica.finish(exchange, 500)
        return refusal(ApiError(500, "The server failed; its log says more.", code="internal_error"))
    answer = (ChatAnswer if isinstance(asked, ChatRequest) else CompletionAnswer)(replica.config, exchange)
    if asked.stream:
        return EventStream(replica, request, exchange, pieces, answer, asked.wants_usage)
    return await answer_whole(replica, request, exchange, pieces, answer)


async def _parsed(
    request: Request, kind: type[ChatRequest] | type[CompletionRequest]
) -> ChatRequest | CompletionRequest:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ApiError(413, f"The body is larger than {MAX_BODY_BYTES} bytes.", code="request_too_large")
    try:
        return kind.model_validate_json(bytes(body))
    except ValidationError as error:
        raise explain(error) from error


async def _prompt(replica: Replica, asked: ChatRequest | CompletionRequest, exchange: Exchange) -> Prompt:
    """Tokens and bounds. Raises ApiError when they do not fit the context."""
    tokens = await _tokens(replica, asked, exchange)
    exchange.n_prompt_tokens = len(tokens)
    chat = isinstance(asked, ChatRequest)
    limit, n_wanted = replica.engine.context_length, asked.asked_tokens
    if not tokens:
        raise ApiError(400, "The prompt is empty.", code="invalid_value", param="prompt")
    if len(tokens) + (n_wanted or 1) > limit:
        raise ApiError(
            400,
            f"This model's maximum context length is {limit} tokens. However, you requested "
            f"{len(tokens) + (n_wanted or 1)} tokens ({len(tokens)} in the {'messages' if chat else 'prompt'}, "
            f"{n_wanted or 1} in the completion). Please reduce the length of either.",
            code="context_length_exceeded",
            param="messages" if chat else "prompt",
        )
    default = replica.serving.max_tokens or (DEFAULT_CHAT_TOKENS if chat else DEFAULT_COMPLETION_TOKENS)
    return Prompt(
        tokens=tokens,
        max_tokens=n_wanted or min(default, limit - len(tokens)),
        sampling=asked.sampling(replica.serving),
        stops=asked.stops,
    )


async def _tokens(replica: Replica, asked: ChatRequest | CompletionRequest, exchange: Exchange) -> tuple[int, ...]:
    codec = replica.engine.codec
    if isinstance(asked, ChatRequest):
        exchange.prompt = asked.logged_prompt
        messages = asked.for_template(replica.serving.system_prompt)
        length = sum(len(message["content"]) for message in messages)
        try:
            if length > _LONG_TEXT:
                return tuple(await asyncio.to_thread(codec.encode_chat, messages))
            return tuple(codec.encode_chat(messages))
        except (ChatTemplateError, UnicodeError) as error:
            raise ApiError(400, f"The messages do not fit: {error}", code="invalid_value", param="messages") from error
    if asked.text is None:
        outside = [token for token in asked.tokens if not 0 <= token < replica.vocabulary]
        if outside:
            message = f"Token {outside[0]} is not among the model's {replica.vocabulary}."
            raise ApiError(400, message, code="invalid_value", param="prompt")
        exchange.prompt = codec.decode(asked.tokens)
        return asked.tokens
    exchange.prompt = asked.text
    try:
        return tuple(await asyncio.to_thread(codec.encode, asked.text))
    except UnicodeError as error:
        raise ApiError(400, f"The prompt is no Unicode text: {error}", code="invalid_value", param="prompt") from error


def _start(replica: Replica, pieces: Pieces, prompt: Prompt) -> None:
    try:
        pieces.start(replica.engine, prompt)
    except QueueFullError as error:
        raise ApiError(
            429,
            "Too many requests wait already; try again in a moment.",
            code="queue_full",
            headers={"retry-after": str(RETRY_AFTER_S)},
        ) from error
    except EngineStoppedError as error:
        raise ApiError(503, "This replica is shutting down.", code="unavailable") from error
    finally:
        replica.metrics.waiting(replica.engine.n_waiting)
