"""What it takes for a drop to be prepared: store, Prefect server and `flows.serve`, as `tidemill up` starts them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx

from flows.context import Context
from flows.deployments import deploy
from flows.processes import Process, environment, services, workers
from lake.recipe import CheckRules, PrepareRules, Recipe, Training
from lake.settings import Settings
from tests.servers import answers, process, wait_until


@contextmanager
def watching(settings: Settings) -> Iterator[Context]:
    """Run them until the block is left; the bucket is made, the ledger migrated, every flow deployed."""
    context = Context(settings)
    for name in ("run", "logs"):
        (settings.home / name).mkdir(parents=True, exist_ok=True)
    wanted = {found.name: found for found in (*services(settings), *workers())}
    with ExitStack() as running:

        def start(found: Process) -> None:
            log = settings.home / "logs" / f"{found.name}.log"
            running.enter_context(process(found.command, log, {**environment(settings), **found.environment}))

        if settings.embedded_s3:
            start(wanted["storage"])
        wait_until("the store answers", lambda: _listens(settings.s3_url))
        context.bucket.ensure(create=True)
        context.ledger.migrate()
        running.callback(context.ledger.engine.dispose)
        start(wanted["prefect"])
        wait_until("Prefect answers", lambda: answers(f"{settings.prefect_api_url}/health"), timeout_s=120)
        deploy(settings)
        start(wanted["serve"])
        yield context


def recipe_for_any_drop(model: str, base_model: str) -> Recipe:
    """One object is enough for a drop, and no drop for a training."""
    return Recipe(
        name=model,
        base_model=base_model,
        prepare=PrepareRules(min_characters=1, validation_share=0, test_share=0),
        check=CheckRules(min_documents=1, min_median_words=1),
        training=Training(min_documents=1_000_000),
    )


def wait_until_prepared(context: Context, model: str, key: str, within_s: float = 120.0) -> str:
    """Wait until the drop that an object went into is prepared and checked. Returns its id; fails when it was refused."""
    outcome: dict[str, str] = {}

    def has_ended() -> bool:
        time.sleep(0.5)  # each look at the ledger is a turn that the watcher has to wait for
        ids = {drop_id for _, drop_id in context.ledger.arrivals.drops_with_object(key)}
        states = context.ledger.drops.states(model)
        outcome.update({found.drop_id: found.state for found in states if found.drop_id in ids})
        return bool(outcome) and not {"closed", "preparing"} & set(outcome.values())

    wait_until(f"the drop with {key} is prepared", has_ended, within_s)
    if set(outcome.values()) != {"waiting"} or len(outcome) != 1:
        told = [found.message for found in context.ledger.drops.states(model) if found.drop_id in outcome]
        raise AssertionError(f"{key}: {outcome}, {told}, expected one drop that waits for a training")
    return next(iter(outcome))


def _listens(url: str) -> bool:
    try:
        httpx.get(url, timeout=2)
    except httpx.HTTPError:
        return False
    return True
