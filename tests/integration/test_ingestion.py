"""Arrival with real processes: what comes while the Prefect server hangs is recorded, and handed over later."""

from __future__ import annotations

import signal
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from lake.layout import inbox_prefix, recipe_key
from lake.settings import Settings
from tests.installation import processes_of
from tests.servers import wait_until
from tests.tiny_model import write_tiny_model
from tests.watching import recipe_for_any_drop, wait_until_prepared, watching

pytestmark = pytest.mark.integration


def test_what_arrives_while_prefect_hangs_is_recorded_and_handed_over_when_it_is_back(
    settings: Settings, tmp_path: Path
) -> None:
    recipe = recipe_for_any_drop("docs", f"file:{write_tiny_model(tmp_path / 'tiny')}")
    with watching(settings) as context:
        context.bucket.put(recipe_key("docs"), recipe.model_dump_json().encode())
        hanging = [process for process in processes_of(settings.home) if "prefect" in " ".join(process.cmdline())]
        assert hanging
        for process in hanging:
            process.send_signal(signal.SIGSTOP)
        try:
            for number, name in enumerate(("try", "with", "while")):
                key = f"{inbox_prefix('docs')}{number}.txt"
                context.bucket.put(key, topics[name].encode())
                wait_until(f"{key} is recorded", lambda key=key: context.ledger.arrivals.drops_with_object(key))
            wait_until("the first drop is closed", context.ledger.drops.states)
            assert {found.state for found in context.ledger.drops.states()} == {"closed"}
        finally:
            for process in hanging:
                process.send_signal(signal.SIGCONT)
        drops = {wait_until_prepared(context, "docs", f"{inbox_prefix('docs')}{number}.txt") for number in range(3)}
    # What came while the first drop was queued has merged into one.
    assert 1 <= len(drops) <= 2
