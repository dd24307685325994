"""The BentoML service: health, metrics and lifecycle are BentoML's, the API under `/v1` is ours.

This module is also imported where nothing is served, by `bentoml build` and by the process that supervises the worker;
so it loads the model's runtime only when the service is made.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from bentos.replica import Replica

app = Starlette()


class TellVersion:
    """ASGI middleware: every answer says which version gave it, also those that BentoML gives."""

    def __init__(self, app: ASGIApp, api: Starlette) -> None:
        self._app, self._api = app, api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            replica: Replica | None = getattr(self._api.state, "replica", None)
            if message["type"] == "http.response.start" and replica is not None:
                told = f"{replica.config.model}/{replica.config.version}".encode()
                message = {**message, "headers": [*message.get("headers", ()), (b"x-tidemill-model", told)]}
            await send(message)

        await self._app(scope, receive, tell)


@bentoml.service(
    name="tidemill",
    workers=1,
    logging={"access": {"enabled": False}},  # the gateway logs every request
    traffic={"timeout": 600},  # to the first byte; a request that is not streamed gets it with its last token
)
@bentoml.asgi_app(app, path="/")
class TidemillService:
    """One replica of one model."""

    def __init__(self) -> None:
        from bentos.openai_api import add_routes
        from bentos.replica import open_replica
        from bentos.serving_config import load_serving_settings, read_config
        from lake.settings import load_settings

        for name in ("bentos", "lake"):  # BentoML has set up the handlers
            logging.getLogger(name).setLevel(logging.INFO)
        config = read_config(Path(__file__).parent.parent)
        folder = Path(bentoml.models.get(config.tag).path)
        self._replica: Replica = open_replica(folder, config, load_serving_settings(), load_settings())
        add_routes(app, self._replica)

    async def __is_ready__(self) -> bool:
        return self._replica.engine.is_alive

    async def __is_alive__(self) -> bool:
        return self._replica.engine.is_alive

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        self._replica.close()


_service: Any = TidemillService  # the decorator has made a bentoml.Service of the class
_service.add_asgi_middleware(TellVersion, api=app)
