"""What else writes into a cluster, for tests: a gateway's word on its routes, the pods of Deployments; and what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import lightkube
from lightkube.types import PatchType

from bentos.targets.kubernetes.cluster import KINDS

Json = dict[str, Any]
Verdict = Callable[[Json], str | None]  # why a route is refused; None: it is accepted

_CONTROLLER = "tests/gateway"


class GatewayController:
    """Says its word on every route and policy, as soon as it sees one, until the context ends."""

    def __init__(self, client: lightkube.Client, verdict: Verdict = lambda _: None, silent: bool = False) -> None:
        self._client, self.verdict, self.silent = client, verdict, silent

    def look(self) -> None:
        for kind in ("HTTPRoute", "BackendTrafficPolicy"):
            for found in self._client.list(KINDS[kind]):
                told = found.to_dict()
                generation = told["metadata"].get("generation", 0)
                entries = (told.get("status") or {}).get(_entries(kind)) or [{"conditions": []}]
                spoken = [one["observedGeneration"] for entry in entries for one in entry["conditions"]]
                if not self.silent and (not spoken or min(spoken) < generation):
                    status = {"status": {_entries(kind): [self._entry(told, generation)]}}
                    try:
                        self._client.patch(
                            KINDS[kind].Status, told["metadata"]["name"], status, patch_type=PatchType.MERGE
                        )
                    except lightkube.ApiError:  # gone meanwhile
                        continue

    def _entry(self, told: Json, generation: int) -> Json:
        why = self.verdict(told)
        conditions = [
            {
                "type": kind,
                "status": "True" if why is None or kind == "Accepted" else "False",
                "reason": why or kind,
                "message": why or "",
                "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for kind in ("Accepted", "ResolvedRefs")
        ]
        if told["kind"] == "HTTPRoute":
            return {"parentRef": told["spec"]["parentRefs"][0], "controllerName": _CONTROLLER, "conditions": conditions}
        reference = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "tidemill"}
        return {"ancestorRef": reference, "controllerName": _CONTROLLER, "conditions": conditions[:1]}


def _entries(kind: str) -> str:
    return "parents" if kind == "HTTPRoute" else "ancestors"


@contextmanager
def running(controller: GatewayController) -> Iterator[GatewayController]:
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(0.02):
            controller.look()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield controller
    finally:
        stopping.set()
        thread.join(10)


def make_pod(client: lightkube.Client, deployment: Json, name: str, status: Json) -> Json:
    """A pod of a Deployment, as its controller would make it, with a status as the kubelet would write it."""
    template = deployment["spec"]["template"]
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **template["metadata"]}}
    client.create(KINDS["Pod"].from_dict({**manifest, "spec": template["spec"]}))
    return set_pod(client, name, status)


def set_pod(client: lightkube.Client, name: str, status: Json) -> Json:
    told: Json = client.patch(KINDS["Pod"].Status, name, {"status": status}, patch_type=PatchType.MERGE).to_dict()
    return told


def pod_status(state: Json, ready: bool, restarts: int = 0) -> Json:
    container = {
        "name": "model",
        "image": "docs:v1",
        "imageID": "",
        "ready": ready,
        "restartCount": restarts,
        "state": state,
    }
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {"phase": "Running", "conditions": [condition], "containerStatuses": [container]}


class Killed(BaseException):
    """SIGKILL as a test can have it: nothing in the target's path can catch it."""


class Calls(httpx2.BaseTransport):
    """Sends on, and remembers what was to change. May kill the caller before or after its call `kill_at` (from 1)."""

    def __init__(self, inner: httpx2.BaseTransport, kill_at: int = 0, sent: bool = False) -> None:
        self._inner, self._kill_at, self._sent, self.n = inner, kill_at, sent, 0
        self._last = ("", "")
        self.writes: list[tuple[str, str]] = []
        self.before_write: Callable[[httpx2.Request], None] = lambda request: None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        called = (request.method, request.url.path)
        if request.method != "GET" or called != self._last:  # waiting for a word asks the same again and again
            self.n += 1
            killed = self.n == self._kill_at
        else:
            killed = False
        self._last = called
        if killed and not self._sent:
            raise Killed
        if request.method != "GET":
            self.before_write(request)
            self.writes.append((request.method, request.url.path.split("/namespaces/")[-1].partition("/")[2]))
        answer = self._inner.handle_request(request)
        if killed:
            answer.read()
            raise Killed
        return answer
