"""`tidemill prepare` as a user calls it: local files, earlier results as history, no service up."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows import prepare_alone
from flows.cli import commands
from lake.bucket import Bucket
from lake.errors import TidemillError
from tests.documents import document, edited


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    (tmp_path / "docs.yaml").write_text("name: docs\n")
    return tmp_path


def call(*arguments: str) -> str:
    done = CliRunner().invoke(commands, ["prepare", *arguments, "--recipe", "docs.yaml"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / name).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_files_go_in_and_a_dataset_comes_out(here: Path) -> None:
    (here / "in" / "deep").mkdir(parents=True)
    (here / "in/a.jsonl").write_text(lines(*({"id": f"a{n}", "text": document(n)} for n in range(6))))
    (here / "in/deep/b.txt").write_text(document(20))
    (here / "in/deep/c.bin").write_bytes(b"\x80\x04K\x01.")
    (here / "in/.hidden").write_text(document(30))
    told = json.loads(call("in", "--out", "out", "--json"))

    kept = {row["id"]: row for row in rows(here / "out", "shards")}
    assert {f"a{n}" for n in range(6)} < set(kept)
    assert kept["a1"]["text"] == document(1)
    assert kept["a1"]["source_uri"] == f"file://{here}/in/a.jsonl"
    assert (kept["a1"]["position"], kept["a1"]["lang"]) == ("line:2", "en")
    (reject,) = rows(here / "out", "rejects")
    assert (reject["source_uri"], reject["reason"]) == (f"file://{here}/in/deep/c.bin", "unsupported_format")
    assert (told["n_read"], told["n_kept"], told["n_objects"]) == (8, 7, 3)
    manifest = json.loads((here / "out/manifest.json").read_text())
    assert manifest["record"]["n_kept"] == 7
    listed = {each["key"]: each["size_bytes"] for each in manifest["outputs"]}
    there = {str(path.relative_to(here / "out")): path.stat().st_size for path in (here / "out").rglob("*.parquet")}
    assert listed == there


def test_what_an_earlier_result_holds_is_not_kept_again(here: Path) -> None:
    (here / "a.jsonl").write_text(lines(*({"id": f"a{n}", "text": document(n, 30)} for n in range(6))))
    call("a.jsonl", "--out", "first")
    texts = [document(0, 30), edited(document(1, 30)), document(50, 30)]
    (here / "b.jsonl").write_text(lines(*({"id": f"b{n}", "text": text} for n, text in enumerate(texts))))
    call("b.jsonl", "--out", "second", "--history", "first")

    assert [row["id"] for row in rows(here / "second", "shards")] == ["b2"]
    found = {row["id"]: (row["reason"], row["duplicate_of"]) for row in rows(here / "second", "rejects")}
    assert found == {"b0": ("exact_duplicate", "a0"), "b1": ("near_duplicate", "a1")}
    similarity = {row["id"]: row["similarity"] for row in rows(here / "second", "rejects")}
    assert similarity["b0"] == 1.0
    assert 0.8 <= similarity["b1"] < 1


def test_the_same_call_again_finds_its_result(here: Path) -> None:
    (here / "a.txt").write_text(document(1))
    first = call("a.txt", "--out", "out", "--json")
    written = (here / "out/manifest.json").stat().st_mtime_ns
    assert call("*.txt", "--out", "out", "--json") == first
    assert (here / "out/manifest.json").stat().st_mtime_ns == written


def _interrupt() -> None:
    raise RuntimeError("cut short")


def test_an_attempt_that_did_not_end_is_done_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "a.txt").write_text(document(1))
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="cut short"):
        patch.setattr(prepare_alone, "write_manifest", lambda *_, **__: _interrupt())
        call("a.txt", "--out", "out")
    (here / "out/shards/train-999999-00000.parquet").write_bytes(b"half a f")
    call("a.txt", "--out", "out")
    assert not (here / "out/unfinished").exists()
    told = {each["key"] for each in json.loads((here / "out/manifest.json").read_text())["outputs"]}
    assert told == {str(path.relative_to(here / "out")) for path in (here / "out").rglob("*.parquet")}
    assert len(rows(here / "out", "shards")) == 1


def test_other_peoples_files_are_left_alone(here: Path) -> None:
    (here / "a.txt").write_text(document(1))
    for name in ("thesis.doc", "work/thesis.doc", "metrics/x.csv"):
        mine = here / "mine" / name.replace("/", "-") / name
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
        with pytest.raises(TidemillError, match="other files, such as"):
            call("a.txt", "--out", f"mine/{name.replace('/', '-')}")
        assert mine.read_text() == "mine"
    call("a.txt", "--out", "out")
    (here / "b.txt").write_text(document(2))
    with pytest.raises(TidemillError, match="the result of another one"):
        call("b.txt", "--out", "out")


def test_odd_files_are_passed_over_or_end_as_dead_letters(here: Path) -> None:
    folder = here / "in"
    folder.mkdir()
    (folder / "a b\nü.txt").write_text(document(1))
    (folder / "link.txt").symlink_to(folder / "nowhere.txt")
    (folder / "linked.txt").symlink_to(here / "docs.yaml")
    os.mkfifo(folder / "pipe.txt")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text(document(2))
    told = json.loads(call("in", "--out", "out", "--json"))
    assert (told["n_objects"], told["n_kept"]) == (3, 1)
    reasons = {row["source_uri"].rsplit("/", 1)[-1]: row["reason"] for row in rows(here / "out", "rejects")}
    assert reasons == {"linked.txt": "too_short", "caf?.txt": "source_changed"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl", "--out", "out"], "nothing there"),
        (["docs.yaml", "--out", "out", "--history", "nowhere"], "no manifest.json"),
        (["docs.yaml", "--out", "out", "--runner", "flink"], "flink_master"),
    ],
)
def test_errors_teach(here: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(TidemillError, match=message) as caught:
        call(*arguments)
    assert caught.value.remedy


def test_a_bucket_to_a_bucket_by_several_processes(here: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bucket.address.secret_access_key is not None
    monkeypatch.setenv("TIDEMILL_S3_ENDPOINT_URL", str(bucket.address.endpoint_url))
    monkeypatch.setenv("TIDEMILL_S3_ACCESS_KEY_ID", str(bucket.address.access_key_id))
    monkeypatch.setenv("TIDEMILL_S3_SECRET_ACCESS_KEY", bucket.address.secret_access_key)
    for n in range(4):
        bucket.put(f"crawl/{n}.txt", document(n % 3).encode())
    bucket.put("crawlers.txt", document(9).encode())
    (here / "local.txt").write_text(document(2))
    root = f"s3://{bucket.name}"
    told = json.loads(call(f"{root}/crawl", "local.txt", "--out", f"{root}/prepared/x", "--json", "--workers", "2"))

    assert (told["n_read"], told["n_kept"], told["rejected"]) == (5, 3, {"exact_duplicate": 2})
    assert bucket.exists("prepared/x/manifest.json")
    local = json.loads(call(f"{root}/crawl/", "local.txt", "--out", "out", "--json"))
    assert {**local, "prefix": ""} == {**told, "prefix": ""}
