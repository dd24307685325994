"""One request and its answer, from arrival to the prediction log."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from starlette.requests import Request

from bentos.engine import Engine
from bentos.generation import Generation, Piece, Prompt
from bentos.users import user_named_by
from lake.records import PredictionLog

CLIENT_GONE = 499  # as nginx calls it: the client closed the connection before it was answered
SHADOW_HEADER = "x-tidemill-shadow"
PIN_HEADER = "x-tidemill-version"


class Exchange:
    """What is known of a request so far. `finished` gives its row of the log, whatever became of it.

    The row names the user as the request does: whoever keeps it hashes that first.
    """

    def __init__(self, request: Request, model: str, version: str) -> None:
        self._at, self._started = datetime.now(UTC), time.monotonic()
        self._model, self._version = model, version
        # Envoy gives every request an id; without it the replica is asked directly.
        self.request_id = request.headers.get("x-request-id", "")[:128] or str(uuid.uuid4())
        self.shadow = request.headers.get(SHADOW_HEADER) == "true"
        self.pinned = PIN_HEADER in request.headers
        self._user = user_named_by(request)
        self.prompt = ""
        self.n_prompt_tokens = self.n_response_tokens = 0
        self.first_token_s: float | None = None
        self._texts: list[str] = []

    @property
    def response(self) -> str:
        return "".join(self._texts)

    def take(self, piece: Piece) -> None:
        if self.first_token_s is None and piece.n_tokens:
            self.first_token_s = time.monotonic() - self._started
        self._texts.append(piece.text)
        self.n_response_tokens = piece.n_tokens

    def finished(self, status: int) -> PredictionLog:
        return PredictionLog(
            request_id=self.request_id,
            model=self._model,
            version=self._version,
            at=self._at,
            prompt=self.prompt,
            response=self.response,
            n_prompt_tokens=self.n_prompt_tokens,
            n_response_tokens=self.n_response_tokens,
            latency_ms=round((time.monotonic() - self._started) * 1000, 3),
            status=status,
            shadow=self.shadow,
            user=self._user,
            pinned=self.pinned,
        )


class Pieces:
    """The pieces of one generation, awaited on the event loop that made this."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Piece] = asyncio.Queue()
        self._generation: Generation | None = None

    def start(self, engine: Engine, prompt: Prompt) -> None:
        """Raises what `Engine.submit` raises."""
        self._generation = engine.submit(prompt, self._tell)

    def cancel(self) -> None:
        if self._generation is not None:
            self._generation.cancel()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while True:
            piece = await self._queue.get()
            yield piece
            if piece.finish is not None:
                return

    def _tell(self, piece: Piece) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, piece)


@asynccontextmanager
async def on_disconnect(request: Request, act: Callable[[], None]) -> AsyncIterator[None]:
    """Call `act` should the client close its connection meanwhile. The request's body has been read before."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        act()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
