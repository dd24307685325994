"""A Kubernetes API in memory behind a real HTTP server (kmock), and what a cluster's controllers would write into it.

It knows what a `KubernetesTarget` relies on: label selectors, generations, resource versions as compare-and-set,
server-side apply (a manager's own fields that it no longer names go; other values are a conflict unless forced), the
status subresource, logs. Whatever needs a real server's word (admission, schemas, rights) is not to be had here.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import aiohttp.web
import attrs
import httpx2
import kmock
import lightkube
import yaml
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster, Context, User

NAMESPACE = "models"
Json = dict[str, Any]
Address = tuple[str, str]  # plural, name


class Api(NamedTuple):
    """Where an API answers, who asks, and whether it keeps logs of pods."""

    url: str
    user: User
    certificate: str | None = None
    has_logs: bool = False

    def transport(self) -> httpx2.BaseTransport:
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # cheap: of nobody, which plain HTTP does not mind
        if self.certificate is not None:
            trust.load_verify_locations(self.certificate)
        return httpx2.HTTPTransport(verify=trust)

    def client(self, transport: httpx2.BaseTransport | None = None) -> lightkube.Client:
        cluster = Cluster(server=self.url, insecure=True)  # the transport verifies
        config = SingleConfig("tests", Context("tests", "tests", NAMESPACE), cluster, self.user)
        return lightkube.Client(
            config, namespace=NAMESPACE, field_manager="tests", transport=transport or self.transport()
        )


@attrs.define(kw_only=True)
class MemoryApi(kmock.KubernetesScaffold):
    """`objects` and `logs` are what it holds, for tests to look at and to change."""

    objects: dict[Address, Json] = attrs.field(factory=dict)
    logs: dict[str, str] = attrs.field(factory=dict)
    _applied: dict[Address, Json] = attrs.field(factory=dict)
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    async def _render_error(self, exc: Exception) -> aiohttp.web.StreamResponse:
        code = exc.status if isinstance(exc, kmock.KubernetesError) else 500
        told = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
        answer = _json({**told, "reason": getattr(exc, "reason", "InternalError"), "message": str(exc)})
        answer.set_status(code)
        return answer

    async def _handle(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        plural, name = request.resource.plural, request.name
        if request.subresource == "log":
            return aiohttp.web.Response(text=self.logs.get(name, ""))
        if request.method == kmock.method.GET and name is None:
            wanted = dict(part.split("=") for part in request.params.get("labelSelector", "").split(",") if part)
            found = [one for (kind, _), one in sorted(self.objects.items()) if kind == plural]
            found = [one for one in found if wanted.items() <= (one["metadata"].get("labels") or {}).items()]
            return _json({"metadata": {}, "items": found})
        if request.method == kmock.method.POST:
            if (plural, request.data["metadata"]["name"]) in self.objects:
                raise kmock.KubernetesError(status=409, reason="AlreadyExists", message="already exists")
            return self._written((plural, request.data["metadata"]["name"]), request.data)
        if request.method == kmock.method.PATCH and "apply" in request.headers.get("Content-Type", ""):
            return self._apply((plural, name), yaml.safe_load(request.body), "force" in request.params)
        if (plural, name) not in self.objects:
            raise kmock.KubernetesError(status=404, reason="NotFound", message=f"{plural} {name} not found")
        if request.method == kmock.method.PATCH:
            data = yaml.safe_load(request.body)
            only = {"status": data["status"]} if request.subresource == "status" else data
            return self._written((plural, name), _merged(self.objects[plural, name], only))
        if request.method == kmock.method.DELETE:
            self._applied.pop((plural, name), None)
            return _json(self.objects.pop((plural, name)))
        return _json(self.objects[plural, name])

    def _apply(self, address: Address, manifest: Json, force: bool) -> aiohttp.web.Response:
        live = self.objects.get(address)
        version = manifest["metadata"].pop("resourceVersion", None)
        if version is not None and (live is None or live["metadata"]["resourceVersion"] != version):
            raise kmock.KubernetesError(status=409, reason="Conflict", message="the object has been modified")
        if live is not None and not force and _merged(live, manifest) != live:
            raise kmock.KubernetesError(status=409, reason="Conflict", message="Apply failed with conflicts")
        kept = _without(copy.deepcopy(live or {}), self._applied.get(address, {}), manifest)
        self._applied[address] = manifest
        return self._written(address, _merged(kept, manifest))

    def _written(self, address: Address, data: Json) -> aiohttp.web.Response:
        before, data = self.objects.get(address), copy.deepcopy(data)
        if before is None:
            data["metadata"] |= {"uid": f"uid-{next(self._numbers)}", "generation": 1, "namespace": NAMESPACE}
        elif data.get("spec") != before.get("spec"):
            data["metadata"]["generation"] = before["metadata"]["generation"] + 1
        if data != before:
            data["metadata"]["resourceVersion"] = str(next(self._numbers))
        self.objects[address] = data
        return _json(data)


@contextmanager
def memory_api() -> Iterator[tuple[Api, MemoryApi]]:
    """The API on a free port of loopback, in a thread of its own."""
    handler, started, loop = MemoryApi(), threading.Event(), asyncio.new_event_loop()
    url, stopping = "", asyncio.Event()

    async def serve() -> None:
        nonlocal url
        async with handler, kmock.Server(handler) as server:
            url = str(server.url).rstrip("/")
            started.set()
            await stopping.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    started.wait(10)
    try:
        yield Api(url, User(token="a-token-of-tests"), has_logs=True), handler
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
        loop.close()


def _json(told: Json) -> aiohttp.web.Response:
    """As the API server says it; aiohttp's own would add a charset."""
    return aiohttp.web.Response(body=json.dumps(told).encode(), content_type="application/json")


def _merged(live: Any, manifest: Any) -> Any:
    if not (isinstance(live, dict) and isinstance(manifest, dict)):
        return manifest
    return {**live, **{key: _merged(live.get(key), value) for key, value in manifest.items()}}


def _without(live: Any, applied: Any, manifest: Any) -> Any:
    """`live` without what was applied before and is no longer named."""
    if not all(isinstance(one, dict) for one in (live, applied, manifest)):
        return live
    kept = {key: value for key, value in live.items() if key not in applied or key in manifest}
    return {key: _without(value, applied.get(key), manifest.get(key)) for key, value in kept.items()}
