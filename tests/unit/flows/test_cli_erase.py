from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows import cli
from flows.context import Context
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.settings import Settings
from tests.documents import document
from tests.erasure import dropped, lines, put_recipe, version


@pytest.fixture
def context(settings: Settings, bucket: Bucket, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Context:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    made = Context(settings)
    put_recipe(made)
    dataset = dropped(made, {"a.jsonl": lines(*map(document, range(3))), "b.jsonl": lines(document(9))}, "trained")
    version(made, [dataset])
    return made


def tidemill(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(cli.commands, list(arguments), **options)


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_it_asks_first_and_no_is_no(context: Context) -> None:
    refused = tidemill("erase", "inbox/docs/a.jsonl", input="n\n")
    assert refused.exit_code == 1
    assert "3 documents" in refused.output and "docs/v1 (champion) has seen them" in refused.output
    assert context.ledger.erasures.all() == []
    assert tidemill("erase", "inbox/docs/a.jsonl", "--json").exit_code == 2


def test_json_from_the_plan_to_the_status(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("inbox/docs/a.jsonl\n\nno-such-id\n")
    (planned,) = told(tidemill("erase", "--ids", str(path), "--dry-run", "--json"))["plans"]
    assert (planned["n_documents"], planned["unknown"]) == (3, ["no-such-id"])
    assert told(tidemill("erasures", "--json")) == []
    done = told(tidemill("erase", "--ids", "-", "--yes", "--json", input="inbox/docs/a.jsonl\nno-such-id\n"))
    (erasure,) = done["erasures"]
    assert (erasure["state"], erasure["versions"][0]["live"], done["unknown"]) == ("done", True, ["no-such-id"])
    assert done["delete_yourself"][0].startswith(f"aws s3 rm s3://{context.bucket.name}/inbox/docs/a.jsonl")
    assert [one["erasure_id"] for one in told(tidemill("erasures", "--json"))] == [erasure["erasure_id"]]
    shown = tidemill("erasures", erasure["erasure_id"]).output
    assert "docs/v1 has seen it: champion, live" in shown
    assert tidemill("erasures", "e0").exit_code == 1


def test_a_missing_file_of_ids_is_told(context: Context, tmp_path: Path) -> None:
    result = tidemill("erase", "--ids", str(tmp_path / "none.txt"))
    assert result.exit_code == 1
    assert "none.txt: expected a text file with one subject a line" in str(result.exception)
