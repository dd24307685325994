"""`python -m flows.status_server`: rollouts, alarms and live models as pages and as JSON, read from the ledger alone.

It shows and changes nothing: GET alone, no secret, no text of a request or an answer. It listens on loopback; names of
other hosts are refused, so that no page in a browser can read it by rebinding its own name to this address.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime

import uvicorn
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bentos.lease import NAME
from flows.rollout_timeline import Row, timeline
from flows.rollout_view import Pulse, RolloutView, as_json, read_view, thinned
from flows.status_page import LiveModel, asset, index_page, refusal_page, rollout_page
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.records import RolloutLook
from lake.settings import Settings, load_settings

log = logging.getLogger("tidemill.status")
HOSTS = ["127.0.0.1", "localhost"]
MAX_CONNECTIONS = 50
MOST_ROLLOUTS = 100
# Who looks asks every two seconds, and looks are kept every few: after a longer pause all are read again.
READ_ALL_AFTER_S = 10.0
KEPT_BOOKS = 8
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_ASSETS = {"status.css": "text/css", "status.js": "text/javascript"}


class LookBooks:
    """The looks of the rollouts that somebody looks at. A ledger takes turns: all of them are read once, then the last."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._books: OrderedDict[str, tuple[float, list[RolloutLook]]] = OrderedDict()

    def of(self, rollout_id: str) -> list[RolloutLook]:
        with self._lock:
            read_at_s, looks = self._books.pop(rollout_id, (float("-inf"), []))
            last = self._ledger.rollout_looks.last(rollout_id)
            if time.monotonic() - read_at_s > READ_ALL_AFTER_S and last != (looks[-1] if looks else None):
                looks = self._ledger.rollout_looks.of(rollout_id)
            elif last is not None and (not looks or last != looks[-1]):
                looks = [*looks, last]
            self._books[rollout_id] = (time.monotonic(), thinned(looks))
            while len(self._books) > KEPT_BOOKS:
                self._books.popitem(last=False)
            return self._books[rollout_id][1]


class Status:
    """The handlers of one installation."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._books = LookBooks(ledger)
        self._pulse = Pulse()

    def index(self, _: Request) -> Response:
        rows = timeline(self._ledger, most=MOST_ROLLOUTS)
        now = datetime.now(UTC)
        return HTMLResponse(index_page(self._models(rows), rows, self._ledger.alarms.open(), self._alive(), now))

    def rollout(self, request: Request) -> Response:
        return HTMLResponse(rollout_page(self._view(request), self._alive()))

    def api_rollout(self, request: Request) -> Response:
        return JSONResponse({**as_json(self._view(request)), "pulse": self._alive()})

    def api_rollouts(self, _: Request) -> Response:
        rows = timeline(self._ledger, most=MOST_ROLLOUTS)
        return JSONResponse({
            "seen_at": datetime.now(UTC).isoformat(),
            "pulse": self._alive(),
            "rollouts": [row.as_json() for row in rows],
            "alarms": [alarm.model_dump(mode="json") for alarm in self._ledger.alarms.open()],
            "models": [
                {
                    "model": model.name,
                    "champion": model.champion,
                    "live_at": model.live_at.isoformat() if model.live_at else None,
                    "rollout": model.running.rollout_id if model.running else None,
                }
                for model in self._models(rows)
            ],
        })  # fmt: skip

    def metrics(self, _: Request) -> Response:
        """What a Prometheus may alert on."""
        registry = CollectorRegistry()
        alarms = Gauge("tidemill_alarms_open", "Alarms that nobody has cleared", registry=registry)
        alarms.set(len(self._ledger.alarms.open()))
        share = Gauge(
            "tidemill_rollout_share", "Share of a step under way", ["model", "challenger", "stage"], registry=registry
        )
        for state in self._ledger.rollouts.running():
            step = state.step
            labels = (state.model, state.challenger, step.stage if step else "pending")
            share.labels(*labels).set(step.share if step else 0.0)
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _view(self, request: Request) -> RolloutView:
        rollout_id = request.path_params["rollout_id"]
        try:
            return read_view(self._ledger, rollout_id, self._books.of(rollout_id))
        except TidemillError as error:
            if isinstance(error, ConnectionError):
                raise
            raise HTTPException(404, "no rollout by this id") from error

    def _models(self, rows: list[Row]) -> list[LiveModel]:
        versions = self._ledger.versions.all()
        champions = {version.model: version for version in versions if version.state == "champion"}
        running = {row.state.model: row.state for row in rows if row.state.state == "running"}
        return [
            LiveModel(
                name,
                champions[name].version if name in champions else None,
                champions[name].live_at if name in champions else None,
                running.get(name),
            )
            for name in sorted({version.model for version in versions})
        ]

    def _alive(self) -> str:
        return self._pulse.seen(self._ledger.leases.get(NAME), time.monotonic())


class SafeHeaders:
    """The same headers on every answer, refusals among them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, sent)


async def healthz(_: Request) -> Response:
    """This process answers. Whether the ledger does, its pages say."""
    return JSONResponse({"status": "ok"})


def assets(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise HTTPException(404, "no such file")
    return Response(asset(name), media_type=_ASSETS[name])


def application(settings: Settings) -> Starlette:
    """The ASGI application. Raises TidemillError when the ledger's address makes no sense."""
    status = Status(Ledger(settings))
    return Starlette(
        routes=[
            Route("/", status.index, methods=["GET"]),
            Route("/rollouts/{rollout_id}", status.rollout, methods=["GET"]),
            Route("/api/rollouts", status.api_rollouts, methods=["GET"]),
            Route("/api/rollouts/{rollout_id}", status.api_rollout, methods=["GET"]),
            Route("/metrics", status.metrics, methods=["GET"]),
            Route("/assets/{name}", assets, methods=["GET"]),
            Route("/healthz", healthz, methods=["GET"]),
        ],
        middleware=[
            Middleware(SafeHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False),
        ],
        exception_handlers={HTTPException: _refused, SQLAlchemyError: _away, TidemillError: _away},
    )


def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    told = error.detail if isinstance(error, HTTPException) else "it failed"
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return _refusal(request, status, told, headers)


def _away(request: Request, error: Exception) -> Response:
    """Whatever a database says stays in the log: it may name what is nobody's business here."""
    log.error("the ledger cannot be read: %s", error)
    return _refusal(request, 503, "the ledger cannot be read now; the log says why", {"retry-after": "5"})


def _refusal(request: Request, status: int, told: str, headers: dict[str, str]) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": told}, status, headers)
    return HTMLResponse(refusal_page(str(status), told, datetime.now(UTC)), status, headers)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = load_settings()
    uvicorn.run(
        application(settings),
        host="127.0.0.1",
        port=settings.status_port,
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="off",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
