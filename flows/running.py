"""Flow runs in threads of this process: made at the Prefect server, begun here, each of them once at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.flows import Flow
from prefect.states import Pending

from flows.reaper import OWNER_TAG
from lake.errors import TidemillError
from lake.process_owner import process_owner

log = logging.getLogger("tidemill.serve")
MAX_THREADS = 256  # most of them wait, for a training or a rollout


@dataclass(frozen=True)
class InHand:
    """A flow that goes on in this process."""

    flow: str
    model: str
    parameters: dict[str, Any]


class FlowThreads:
    """`own_runs` holds the ids of the flow runs that go on here; `ended` is called after each of them."""

    def __init__(self, own_runs: set[str], ended: Callable[[], None]) -> None:
        self._own_runs, self._ended = own_runs, ended
        self._pool = ThreadPoolExecutor(max_workers=MAX_THREADS, thread_name_prefix="flow")
        self._running: dict[str, InHand] = {}

    def start(self, flow: Flow[..., Any], model: str, deployment: str, **more: Any) -> None:
        """Run a flow of a model as a run of its deployment, unless one with the same parameters goes on."""
        parameters = {"model": model, **more}
        if _identity(flow, parameters) not in self._running:
            self.submit(flow, model, made_run(f"{flow.name}/{deployment}", None, parameters), parameters)

    def submit(self, flow: Flow[..., Any], model: str, run: FlowRun, parameters: dict[str, Any]) -> None:
        """Begin a run that has been made."""
        identity = _identity(flow, parameters)
        self._running[identity] = InHand(flow.name, model, parameters)
        self._own_runs.add(str(run.id))
        self._pool.submit(self._run, identity, flow, run, parameters)

    def do(self, what: str, action: Callable[[], object]) -> None:
        """Something that is no flow, in a thread; once at a time."""
        if what not in self._running:
            self._running[what] = InHand(what, "", {})
            self._pool.submit(self._do, what, action)

    def in_hand(self, model: str, *flows: Flow[..., Any]) -> list[InHand]:
        """What goes on here of these flows for a model."""
        names = {flow.name for flow in flows}
        return [found for found in list(self._running.values()) if found.model == model and found.flow in names]

    def _run(self, identity: str, flow: Flow[..., Any], run: FlowRun, parameters: dict[str, Any]) -> None:
        try:
            self._do(identity, lambda: run_flow(flow, flow_run=run, parameters=parameters))
        finally:
            self._own_runs.discard(str(run.id))
            self._ended()

    def _do(self, identity: str, action: Callable[[], object]) -> None:
        try:
            action()
        except TidemillError as error:
            log.error("%s: %s", identity, error)
        except Exception:
            log.exception("%s", identity)
        finally:
            del self._running[identity]


def made_run(deployment: str, key: str | None, parameters: dict[str, Any]) -> FlowRun:
    """A run of the deployment for this process, the same one for the same key. Raises when the Prefect server is away."""
    tag = f"{OWNER_TAG}{process_owner()}"
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
        # Pending, not Scheduled: a worker must not pick up what runs here.
        run = client.create_flow_run_from_deployment(
            found.id, parameters=parameters, idempotency_key=key, state=Pending(), tags=[tag]
        )
        if tag not in run.tags:  # an earlier process made it, and died before it went on
            client.update_flow_run(run.id, tags=[tag])
    return run


def _identity(flow: Flow[..., Any], parameters: dict[str, Any]) -> str:
    return f"{flow.name} {sorted(parameters.items())}"
