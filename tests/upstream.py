"""A small HTTP server with the manners of a model server, for tests of what stands before it.

`python -m tests.upstream <tag> <port>` answers `/readyz` and OpenAI's completion paths with its tag. Two things can be
asked of it beside the traffic: `GET /seen` tells what it was sent, `POST /release` lets waiting streams go on.
A tag that begins with `broken` does not start; one that begins with `parent` is served by a worker process.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route


class ModelServer:
    """Counts live and mirrored requests; fails the share TIDEMILL_INJECT_ERROR_RATE of them, drawn with a fixed seed.

    Takes 1 ms more for each of TIDEMILL_MAX_TOKENS, and tells the TIDEMILL_VARIANT that it serves as.
    """

    def __init__(self, tag: str, error_rate: float) -> None:
        self.tag, self.error_rate = tag, error_rate
        self.draw = random.Random(0)
        self.released = asyncio.Event()
        self.seen: dict[str, Any] = {"tag": tag, "live": 0, "shadow": 0, "headers": {}}

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.seen["shadow" if request.headers.get("x-tidemill-shadow") else "live"] += 1
        self.seen["headers"] = dict(request.headers)
        if self.draw.random() < self.error_rate:
            return JSONResponse({"error": {"message": "injected"}}, 500)
        # The gateway counts latency in whole milliseconds.
        await asyncio.sleep(0.005 + 0.001 * int(os.environ.get("TIDEMILL_MAX_TOKENS", "0")))
        variant = os.environ.get("TIDEMILL_VARIANT")
        told = {"model": body["model"], "tag": self.tag, "path": request.url.path, "variant": variant}
        if body.get("stream"):
            return StreamingResponse(self.stream(told), media_type="text/event-stream")
        return JSONResponse(told, headers={"x-tidemill-model": self.tag})

    async def stream(self, told: dict[str, str | None]) -> AsyncIterator[str]:
        """The first event at once, the second only after `/release`."""
        yield f"data: {json.dumps(told)}\n\n"
        await self.released.wait()
        yield "data: [DONE]\n\n"

    async def tell(self, _: Request) -> Response:
        return JSONResponse(self.seen)

    async def ready(self, _: Request) -> Response:
        return PlainTextResponse("ok")

    async def release(self, _: Request) -> Response:
        self.released.set()
        self.released = asyncio.Event()
        return PlainTextResponse("ok")

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/readyz", self.ready),
                Route("/seen", self.tell),
                Route("/release", self.release, methods=["POST"]),
                Route("/v1/chat/completions", self.complete, methods=["POST"]),
                Route("/v1/completions", self.complete, methods=["POST"]),
            ]
        )


def main() -> None:
    tag, port = sys.argv[1], int(sys.argv[2])
    if tag.startswith("broken"):
        sys.exit(f"no bento {tag} in the store")
    if tag.startswith("parent"):
        worker = subprocess.Popen([sys.executable, "-m", "tests.upstream", tag.removeprefix("parent-"), str(port)])
        signal.signal(signal.SIGTERM, lambda *_: worker.terminate())
        sys.exit(worker.wait())
    server = ModelServer(tag, float(os.environ.get("TIDEMILL_INJECT_ERROR_RATE", "0")))
    uvicorn.run(
        server.app(),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=20,
    )


if __name__ == "__main__":
    main()
