"""Turn a generation into an HTTP answer: whole, as server-sent events, or as a refusal."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from bentos.exchange import CLIENT_GONE, Exchange, Pieces, on_disconnect
from bentos.generation import FinishReason
from bentos.openai_answers import Answer
from bentos.openai_types import ApiError
from bentos.replica import Replica


def refusal(error: ApiError) -> Response:
    return JSONResponse(error.body(), error.status, headers=error.headers)


async def answer_whole(
    replica: Replica, request: Request, exchange: Exchange, pieces: Pieces, answer: Answer
) -> Response:
    """Wait for the end of the generation; a client that leaves meanwhile ends it."""
    finish: FinishReason = "error"
    try:
        async with on_disconnect(request, pieces.cancel):
            async for piece in pieces:
                exchange.take(piece)
                finish = piece.finish or finish
    finally:
        pieces.cancel()
        status = replica.finish(exchange, _status_of(finish))
    if status == 200:
        return JSONResponse(answer.whole(finish))
    if status == CLIENT_GONE:
        return Response(status_code=CLIENT_GONE)
    return refusal(ApiError(status, "The generation failed; the server's log says more.", code="internal_error"))


class EventStream(Response):
    """Server-sent events: one for each piece of text, then the finish, the usage if asked for, and `[DONE]`."""

    def __init__(
        self,
        replica: Replica,
        request: Request,
        exchange: Exchange,
        pieces: Pieces,
        answer: Answer,
        wants_usage: bool,
    ) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._replica, self._request, self._exchange = replica, request, exchange
        self._pieces, self._answer, self._wants_usage = pieces, answer, wants_usage
        self._finish: FinishReason = "cancelled"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (ASGI's signature)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with on_disconnect(self._request, self._pieces.cancel):
                async for event in self._events():
                    body = f"data: {event}\n\n".encode()
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._pieces.cancel()
            self._replica.finish(self._exchange, _status_of(self._finish))

    async def _events(self) -> AsyncIterator[str]:
        answer, usage = self._answer, self._wants_usage
        first = answer.opening(usage)
        if first is not None:
            yield json.dumps(first)
        async for piece in self._pieces:
            self._exchange.take(piece)
            if piece.text:
                yield json.dumps(answer.delta(piece.text, usage))
            self._finish = piece.finish or self._finish
        if self._finish in ("stop", "length"):
            yield json.dumps(answer.closing(self._finish, usage))
            if usage:
                yield json.dumps(answer.usage_chunk())
            yield "[DONE]"
        else:
            error = ApiError(_status_of(self._finish), "The generation broke off.", code="internal_error")
            yield json.dumps(error.body())


def _status_of(finish: FinishReason) -> int:
    return {"stop": 200, "length": 200, "cancelled": CLIENT_GONE, "error": 500}[finish]
