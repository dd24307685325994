"""`python -m benchmarks._gateway_server TAG PORT`: a small real HTTP server in place of a bento.

As `tests.upstream`, but each version draws its failures with a seed of its own and names itself in them. Its tag is the
version, or the version and a share of requests that fail, as `v3@0.01`: faults of its own, not of a drill. `POST /turn` with `{"error_rate": 0.5}` makes a good version bad while it serves.
"""

from __future__ import annotations

import random
import sys

import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests.upstream import ModelServer


class Turning(ModelServer):
    def __init__(self, tag: str, error_rate: float) -> None:
        super().__init__(tag, error_rate)
        self.draw = random.Random(tag)

    async def complete(self, request: Request) -> Response:
        answer = await super().complete(request)
        answer.headers["x-tidemill-model"] = self.tag
        return answer

    async def turn(self, request: Request) -> Response:
        self.error_rate = float((await request.json())["error_rate"])
        return PlainTextResponse("ok")


def main(tag: str, port: int) -> None:
    version, _, error_rate = tag.partition("@")
    server = Turning(version, float(error_rate or 0))
    app = server.app()
    app.router.routes.append(Route("/turn", server.turn, methods=["POST"]))
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=20,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
