from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from typer.testing import CliRunner, Result

from flows import cli
from flows.context import Context
from lake.bucket import Bucket
from lake.errors import TidemillError
from lake.folder import Folder
from lake.ledger import Ledger
from lake.records import CheckReport
from lake.settings import Settings
from tests.prepared import kept, put_dataset, rejected
from tests.stages import commit_record

FIRST = [kept(f"doc{n}", f"first text {n}") for n in range(6)]
SECOND = [kept("doc9", "second text"), rejected("copy", "near_duplicate", duplicate_of="doc2", similarity=0.9)]


@pytest.fixture
def context(settings: Settings, bucket: Bucket, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Context:
    """Two models; `docs` has two datasets."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    for name in ("docs", "mill"):
        bucket.put(f"recipes/{name}.yaml", f"name: {name}\n".encode())
    for identity, rows, history in (("aa11", FIRST, ()), ("ab22", SECOND, ("aa11",))):
        prefix = f"datasets/docs/{identity}/"
        dataset = put_dataset(bucket, prefix, rows, manifest=True, dataset_id=identity, history_ids=history)
        commit_record(ledger, "prepare", "docs", identity, dataset)
    return Context(settings)


def tidemill(*arguments: str) -> Result:
    return CliRunner().invoke(cli.commands, ["data", *arguments], env={"COLUMNS": "160"})


def told(*arguments: str) -> Any:
    result = tidemill(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def refused(*arguments: str) -> TidemillError:
    error = tidemill(*arguments).exception
    assert isinstance(error, TidemillError)
    return error


@pytest.mark.parametrize("command", ["list", "show", "diff", "sample", "export"])
def test_every_command_teaches_by_example(command: str) -> None:
    shown = tidemill(command, "--help").output
    assert f"tidemill data {command}" in " ".join(shown.split())


def test_list(context: Context) -> None:
    assert [one["dataset_id"] for one in told("list")] == ["aa11", "ab22"]
    assert [one["dataset_id"] for one in told("list", "docs")] == ["aa11", "ab22"]
    assert told("list", "mill") == []
    shown = tidemill("list").output
    assert "aa11" in shown and "6 / 0 / 0" in shown
    assert "docs, mill" in refused("list", "nix").expected


@pytest.mark.parametrize(
    ("subject", "expected"), [("aa11", "aa11"), ("ab", "ab22"), ("docs/latest", "ab22"), ("docs/aa", "aa11")]
)
def test_a_dataset_by_its_name(context: Context, subject: str, expected: str) -> None:
    assert told("show", subject)["dataset_id"] == expected


def test_a_dataset_by_its_place(context: Context, tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    put_dataset(Folder(folder), "", FIRST, manifest=True, dataset_id="local")
    assert told("show", str(folder))["n_kept"] == 6
    assert told("show", f"s3://{context.bucket.name}/datasets/docs/aa11")["dataset_id"] == "aa11"
    assert "manifest.json" in refused("show", str(tmp_path)).expected
    (folder / "manifest.json").write_text("{}")
    assert "manifest of a dataset" in refused("show", str(folder)).expected


@pytest.mark.parametrize("subject", ["zz", "mill/latest", "docs/zz", ""])
def test_an_unknown_one_lists_the_known(context: Context, subject: str) -> None:
    error = refused("show", subject)
    assert "tidemill data list" in error.remedy or "tidemill drop" in error.remedy
    assert "docs/aa11, docs/ab22" in error.expected or subject == "mill/latest"


def test_an_ambiguous_one_lists_what_it_may_be(context: Context) -> None:
    error = refused("show", "a")
    assert error.got == "that of 2: docs/aa11, docs/ab22"


def test_show(context: Context) -> None:
    found = told("show", "ab22", "--sources", "1")
    assert (found["rejected"], found["languages"], found["domains"]) == ({"near_duplicate": 1}, {"en": 1}, {"wiki": 2})
    assert found["sources"] == [{"source_uri": "s3://b/inbox/docs/doc9.jsonl", "kept": 1, "read": 1}]
    assert found["files"] == {"manifest": 1, "metrics": 2, "rejects": 1, "shards": 1}
    shown = tidemill("show", "ab22", "--sources", "1").output
    for words in ("1 (50.0%)", "near_duplicate", "email 2", "aa11", "and 1 more"):
        assert words in shown


def test_show_tells_what_the_gate_found(context: Context) -> None:
    report = CheckReport(
        check_id="c1",
        dataset_id="aa11",
        passed=False,
        n_expectations=3,
        failures=("kept documents: expected at least 20, got 6",),
        data_docs_key="reports/docs/check/c1/validation.html",
        warnings=("share of x: expected more",),
    )
    commit_record(context.ledger, "check", "docs", "c1", report)
    shown = tidemill("show", "aa11").output
    assert "refused, kept documents: expected at least 20, got 6; warning: share of x: expected more" in shown
    assert told("show", "aa11")["check"]["passed"] is False
    assert told("show", "ab22")["check"] is None


def test_diff(context: Context, tmp_path: Path) -> None:
    put_dataset(Folder(tmp_path / "b"), "", [*FIRST[:4], rejected("doc4", "too_short", detail="short")], manifest=True)
    found = told("diff", "aa11", str(tmp_path / "b"), "--limit", "1")
    assert found["summary"]["dropped_by_reason"] == {"too_short": 1, "source_not_read": 1}
    assert [one["reason"] for one in found["dropped"]] == ["too_short"]
    shown = tidemill("diff", "aa11", str(tmp_path / "b")).output
    assert "s3://b/inbox/docs/doc4.jsonl line:1  too_short (short)" in shown and "6 → 4" in shown


def test_sample(context: Context) -> None:
    assert {one["text"] for one in told("sample", "aa11")} == {row["text"] for row in FIRST}
    assert len(told("sample", "aa11", "-n", "2")) == 2
    (copy,) = told("sample", "docs/latest", "--reason", "near_duplicate")
    assert (copy["kept_instead"]["text"], copy["kept_instead"]["dataset_id"]) == ("first text 2", "aa11")
    assert "first text 2" in tidemill("sample", "docs/latest", "--reason", "near_duplicate").output
    none = tidemill("sample", "docs/latest", "--reason", "bad_json")
    assert none.exit_code == 1 and "reasons here: near_duplicate" in none.output
    assert tidemill("sample", "aa11", "--split", "test", "--reason", "any").exit_code == 2


def test_export(context: Context, tmp_path: Path) -> None:
    result = tidemill("export", "docs/aa11", "--format", "datasets", "--out", str(tmp_path / "hf"))
    assert result.exit_code == 0, result.output
    assert datasets.load_from_disk(str(tmp_path / "hf"))["train"].num_rows == 6
