"""How soon a dropped object's pipeline runs, in a real installation: store, Prefect server, and the process that watches."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from pydoc_data.topics import topics

import httpx
from pydantic import BaseModel, ConfigDict

from flows.context import Context
from lake.layout import inbox_prefix, recipe_key
from lake.settings import load_settings
from tests.ports import free_ports
from tests.servers import wait_until
from tests.watching import recipe_for_any_drop, wait_until_prepared, watching

MODELS = ("one", "two", "three", "four")
PHASE_S = 2.0  # twice the poll interval: every phase of it is as likely
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
    """With all MODELS registered."""
    from tests.tiny_model import write_tiny_model  # torch: memory that the processes measured may need

    ports = dict(zip(("s3_port", "prefect_port", "gateway_port", "gateway_admin_port"), free_ports(4), strict=True))
    # Converting a large model meanwhile would take processor time from what is timed.
    base_model = f"file:{write_tiny_model(folder / 'tiny')}"
    with watching(load_settings(home=folder / "home", **ports)) as context:
        for model in MODELS:
            recipe = recipe_for_any_drop(model, base_model)
            context.bucket.put(recipe_key(model), recipe.model_dump_json().encode())
        yield context


def _dropped(context: Context, model: str, number: int) -> tuple[str, datetime]:
    """Put one object and wait until its drop is prepared. Returns the drop, and when the PUT was answered."""
    # In no order: a watcher could find names that grow by asking for what comes after the last one.
    key = f"{inbox_prefix(model)}{random.Random(f'{model} {number}').getrandbits(64):016x}.txt"
    context.bucket.put(key, _PROSE[number % len(_PROSE)][:1_500].encode())
    answered_at = datetime.now(UTC)
    return wait_until_prepared(context, model, key), answered_at


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
