"""`python -m flows.webhook`: where an object store posts its events. A process of its own, so that it answers at any time.

A sender gets its 2xx once what it has named is durable in the ledger, and not before: what it keeps and sends again
until then cannot be lost, and what comes twice wakes twice, which is harmless.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging

import uvicorn
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lake.ledger import Ledger
from lake.notification import MAX_BYTES, EventUnreadable, in_inbox, named_objects
from lake.settings import Settings, load_settings

log = logging.getLogger("tidemill.webhook")
SIGNATURE_HEADER = "x-tidemill-signature"
# versitygw waits 3 s for an answer. (s3event/webhook.go, v1.8.0)
RECORD_WITHIN_S = 2.0
BODY_WITHIN_S = 10.0
RETRY_AFTER_S = 5
MAX_CONNECTIONS = 300  # versitygw opens one for each event


_Pairs = list[tuple[str, str]]


class Recorder:
    """Writes to the ledger, one transaction at a time: what comes during one shares the next.

    A store sends one event an object. Each in a transaction of its own, they would wait for the disk one after another.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[tuple[_Pairs, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def record(self, named: _Pairs) -> None:
        """Durable on return. Raises what the database does, or TimeoutError; then it may be recorded all the same."""
        if not named:
            return
        entry = (named, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        try:
            async with asyncio.timeout(RECORD_WITHIN_S):
                await entry[1]
        finally:
            if entry in self._waiting:  # given up on before its turn
                self._waiting.remove(entry)

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            named = dict.fromkeys(pair for pairs, _ in batch for pair in pairs)
            try:
                await asyncio.to_thread(self._ledger.wakeups.record, named, "webhook")
            except Exception as error:
                _settle(batch, error)
            else:
                _settle(batch, None)


def _settle(batch: list[tuple[_Pairs, asyncio.Future[None]]], error: Exception | None) -> None:
    for _, recorded in batch:
        if recorded.done():  # its sender has been refused meanwhile
            continue
        if error:
            recorded.set_exception(error)
        else:
            recorded.set_result(None)


class Webhook:
    """The handlers of one installation. `secret` is what a sender must know."""

    def __init__(self, ledger: Ledger, bucket: str, secret: str) -> None:
        self._recorder = Recorder(ledger)
        self._bucket = bucket
        self._secret = secret.encode()
        self._complained = ""

    async def events(self, request: Request) -> Response:
        """204 once the objects that the body names are recorded; a refusal says why.

        A GET or HEAD is a store's or an operator's look whether somebody is there, with the right secret.
        """
        presented = _presented(request.headers.get("authorization"))
        signature = request.headers.get(SIGNATURE_HEADER)
        if not self._is_secret(presented) and (signature is None or request.method != "POST"):
            return _refusal(401, "expected the webhook's secret: Authorization: Bearer, or Basic as password")
        if request.method != "POST":
            return Response(status_code=204)
        try:
            async with asyncio.timeout(BODY_WITHIN_S):
                body = await _body(request)
        except (TimeoutError, ClientDisconnect):
            return _refusal(408, f"expected the whole body within {BODY_WITHIN_S:g} s")
        if body is None:
            return _refusal(413, f"expected at most {MAX_BYTES:,} bytes")
        if not self._is_secret(presented) and not self._has_signed(body, signature or ""):
            return _refusal(401, f"expected {SIGNATURE_HEADER}: sha256= and the body's HMAC with the webhook's secret")
        try:
            named = in_inbox(named_objects(body), self._bucket)
        except EventUnreadable as error:
            return _refusal(400, str(error))
        return await self._record(named)

    async def _record(self, named: _Pairs) -> Response:
        try:
            await self._recorder.record(named)
        except (SQLAlchemyError, OSError) as error:  # a TimeoutError is an OSError
            cause = getattr(error, "orig", None) or error
            self._complain(f"the ledger cannot be written: {type(cause).__name__} {cause}".strip())
            return _refusal(503, "the ledger cannot be written now", {"retry-after": str(RETRY_AFTER_S)})
        self._complained = ""
        return Response(status_code=204)

    def _is_secret(self, presented: bytes) -> bool:
        return hmac.compare_digest(presented, self._secret)

    def _has_signed(self, body: bytes, signature: str) -> bool:
        expected = f"sha256={hmac.new(self._secret, body, hashlib.sha256).hexdigest()}"
        return hmac.compare_digest(signature.strip().lower().encode(), expected.encode())

    def _complain(self, problem: str) -> None:
        """Log a standing problem once, not at every event."""
        if self._complained != problem:
            self._complained = problem
            log.error("%s", problem)


async def healthz(_: Request) -> Response:
    """This process answers. Whether the ledger does is for `tidemill doctor` to say."""
    return JSONResponse({"status": "ok"})


def application(settings: Settings) -> Starlette:
    """The ASGI application. Raises TidemillError when the secret cannot be kept."""
    webhook = Webhook(Ledger(settings), settings.bucket, settings.event_secret)
    return Starlette(
        routes=[
            Route("/events", webhook.events, methods=["POST", "GET"]),  # with GET comes HEAD, MinIO's look
            Route("/healthz", healthz),
        ]
    )


def _presented(header: str | None) -> bytes:
    """The secret in an Authorization header: a Bearer's token, a Basic's password, or the whole of it; else empty.

    MinIO puts `Bearer` before a token of one word and sends one of two words as it is (internal/event/target/webhook.go).
    """
    sent = (header or "").encode("latin-1").strip()
    scheme, _, rest = sent.partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return sent


async def _body(request: Request) -> bytes | None:
    """The request's body; None when there is more of it than an event can have."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            return None
    return bytes(body)


def _refusal(status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    challenge = {"www-authenticate": 'Basic realm="tidemill"'} if status == 401 else {}
    return JSONResponse({"error": why}, status, {**challenge, **(headers or {})})


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = load_settings()
    if settings.webhook_port is None:
        raise SystemExit("expected TIDEMILL_WEBHOOK_PORT, the port to listen on, got none; set it")
    uvicorn.run(
        application(settings),
        host=settings.webhook_host,
        port=settings.webhook_port,
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="off",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
