"""An installation whose ledger is in PostgreSQL: a drop goes its way, also after the database was away."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import pytest

from lake.layout import inbox_prefix, recipe_key
from lake.settings import Settings
from tests.postgresql import PostgreSQL
from tests.tiny_model import write_tiny_model
from tests.watching import recipe_for_any_drop, wait_until_prepared, watching

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_drops_are_prepared_before_and_after_a_restart_of_the_database(
    settings: Settings, postgresql_server: PostgreSQL, tmp_path: Path
) -> None:
    recipe = recipe_for_any_drop("docs", f"file:{write_tiny_model(tmp_path / 'tiny')}")
    prose = [topics[name].encode() for name in ("try", "with")]
    with watching(settings) as context:
        assert context.ledger.engine.dialect.name == "postgresql"
        context.bucket.put(recipe_key("docs"), recipe.model_dump_json().encode())
        context.bucket.put(f"{inbox_prefix('docs')}before.txt", prose[0])
        first = wait_until_prepared(context, "docs", f"{inbox_prefix('docs')}before.txt")
        postgresql_server.stop()
        context.bucket.put(f"{inbox_prefix('docs')}after.txt", prose[1])
        postgresql_server.start()
        second = wait_until_prepared(context, "docs", f"{inbox_prefix('docs')}after.txt")
    assert second != first
    assert not (settings.home / "ledger.db").exists()
