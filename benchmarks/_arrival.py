"""How soon a dropped object's pipeline runs, in a real installation: store, Prefect server, and the process that watches."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from pydoc_data.topics import topics

import httpx
from pydantic import BaseModel, ConfigDict

from flows.context import Context
from flows.deployments import deploy
from flows.processes import Process, environment, services, workers
from lake.layout import inbox_prefix, recipe_key
from lake.recipe import CheckRules, PrepareRules, Recipe, Training
from lake.settings import load_settings
from tests.ports import free_ports
from tests.servers import answers, process, wait_until
from tests.tiny_model import write_tiny_model

MODELS = ("one", "two", "three", "four")
PHASE_S = 2.0  # twice the poll interval: every phase of it is as likely
DONE_WITHIN_S = 120.0
_PROSE = [topics[name] for name in sorted(topics)]


class Arrival(BaseModel):
    """One drop, in seconds since the store has answered the PUT of its object."""

    model_config = ConfigDict(frozen=True)

    closed_after_s: float
    running_after_s: float


def arrivals(n_drops: int) -> list[Arrival]:
    """Drop one small object after another, each when the one before is prepared, on MODELS in turn."""
    phases = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name, _installation(Path(name)) as context:
        for model in MODELS:  # its first drop also pays for imports and connections
            _dropped(context, model, 0)
        put_at: dict[str, datetime] = {}
        for number in range(1, n_drops + 1):
            time.sleep(phases.uniform(0, PHASE_S))
            drop_id, answered_at = _dropped(context, MODELS[number % len(MODELS)], number)
            put_at[drop_id] = answered_at
        running_at = _running_at(context, set(put_at))
        closed_at = {state.drop_id: state.closed_at for state in context.ledger.drops.states()}
    return [
        Arrival(
            closed_after_s=(closed_at[drop_id] - answered_at).total_seconds(),
            running_after_s=(running_at[drop_id] - answered_at).total_seconds(),
        )
        for drop_id, answered_at in put_at.items()
    ]


@contextmanager
def _installation(folder: Path) -> Iterator[Context]:
    ports = dict(zip(("s3_port", "prefect_port", "gateway_port", "gateway_admin_port"), free_ports(4), strict=True))
    context = Context(load_settings(home=folder / "home", **ports))
    settings = context.settings
    for name in ("run", "logs"):
        (settings.home / name).mkdir(parents=True)
    wanted = {found.name: found for found in (*services(settings), *workers())}
    with ExitStack() as running:

        def start(found: Process) -> None:
            log = settings.home / "logs" / f"{found.name}.log"
            running.enter_context(process(found.command, log, {**environment(settings), **found.environment}))

        start(wanted["storage"])
        wait_until("the store answers", lambda: _listens(settings.s3_url))
        context.bucket.ensure(create=True)
        context.ledger.migrate()
        start(wanted["prefect"])
        wait_until("Prefect answers", lambda: answers(f"{settings.prefect_api_url}/health"), timeout_s=120)
        deploy(settings)
        base_model = write_tiny_model(folder / "tiny")  # its conversion must not take processor time from what is timed
        for model in MODELS:
            recipe = _recipe(model, f"file:{base_model}")
            context.bucket.put(recipe_key(model), recipe.model_dump_json().encode())
        start(wanted["serve"])
        yield context


def _recipe(model: str, base_model: str) -> Recipe:
    """A model for which every drop is enough, and that is never trained: what follows must not disturb the next drop."""
    return Recipe(
        name=model,
        base_model=base_model,
        prepare=PrepareRules(min_characters=1),
        check=CheckRules(min_documents=1, min_median_words=1),
        training=Training(min_documents=1_000_000),
    )


def _dropped(context: Context, model: str, number: int) -> tuple[str, datetime]:
    """Put one object and wait until its drop is prepared. Returns the drop, and when the PUT was answered."""
    key = f"{inbox_prefix(model)}note-{number:04}.txt"
    context.bucket.put(key, _PROSE[number % len(_PROSE)][:1_500].encode())
    answered_at = datetime.now(UTC)
    wait_until(f"a drop with {key} is prepared", lambda: _prepared(context, model, key), DONE_WITHIN_S)
    ((_, drop_id),) = context.ledger.arrivals.drops_with_object(key)
    if drop_id is None:
        raise AssertionError(f"{key} is in no drop")
    return drop_id, answered_at


def _prepared(context: Context, model: str, key: str) -> bool:
    time.sleep(0.5)  # each look at the ledger is a turn that the watcher has to wait for
    ids = {drop_id for _, drop_id in context.ledger.arrivals.drops_with_object(key)}
    states = {state.drop_id: state.state for state in context.ledger.drops.states(model)}
    return any(states.get(drop_id or "", "closed") not in ("closed", "preparing") for drop_id in ids)


def _running_at(context: Context, drop_ids: set[str]) -> dict[str, datetime]:
    """When the first task of each drop's pipeline began to run, as Prefect's client has noted it."""
    found: dict[str, datetime] = {}

    def all_told() -> bool:  # the server learns of task runs a moment after they ran
        asked = {"task_runs": {"name": {"like_": "prepare d"}}, "limit": 200}
        answer = httpx.post(f"{context.settings.prefect_api_url}/task_runs/filter", json=asked, timeout=15)
        for run in answer.raise_for_status().json():
            if run["start_time"]:
                found[run["name"].removeprefix("prepare ")] = datetime.fromisoformat(run["start_time"])
        return drop_ids <= found.keys()

    wait_until("Prefect tells of all prepare tasks", all_told)
    return found


def _listens(url: str) -> bool:
    try:
        httpx.get(url, timeout=2)
    except httpx.HTTPError:
        return False
    return True
