"""Benchmarks as a program: what there is to run, what it writes, what its exit status says."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks._inbox import fill
from benchmarks.ingest import percentile
from benchmarks.report import Figure, at_least, at_most, show, told, write
from lake.bucket import Bucket
from tests.s3 import address_of, nanio

FIGURES = [
    at_most("ratio", 1.1, 1.25, "×", "CPU seconds"),
    at_least("speed", 3.0, 7, "tok/s", "batch 1"),
    told("memory", 5.5, "MB", "peak"),
]


def test_a_figure_knows_whether_it_reached_its_target() -> None:
    assert [(figure.target, figure.ok) for figure in FIGURES] == [("≤ 1.25", True), ("≥ 7", False), (None, None)]
    assert at_most("x", 1.25, 1.25, "×", "").ok


def test_figures_are_written_as_a_list(tmp_path: Path) -> None:
    path = write("some", FIGURES, tmp_path / "out")
    assert path == tmp_path / "out" / "some.json"
    read = json.loads(path.read_text())
    assert list(read[0]) == ["name", "value", "unit", "target", "ok", "how"]
    assert [Figure.model_validate(each) for each in read] == FIGURES


def test_figures_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show("some", FIGURES, Console(width=120))
    shown = capsys.readouterr().out
    for part in ("some", "1.1 ×", "≤ 1.25", "3 tok/s", "CPU seconds"):
        assert part in shown


def test_names_are_the_modules_with_a_benchmark() -> None:
    assert {"ingest", "prepare"} <= set(program.names())
    assert not {"report", "__main__", "_documentation"} & set(program.names())


@pytest.mark.parametrize(
    ("n", "percent", "expected"), [(40, 50, 20), (40, 99, 40), (100, 99, 99), (200, 99, 198), (1, 50, 1), (3, 50, 2)]
)
def test_a_percentile_is_a_value_that_was_measured(n: int, percent: int, expected: int) -> None:
    assert percentile([float(value) for value in range(1, n + 1)], percent) == expected


@pytest.mark.parametrize("n_folders", [1, 3])
def test_an_inbox_written_to_disk_is_what_a_store_would_have_kept(tmp_path: Path, n_folders: int) -> None:
    with nanio(tmp_path) as url:
        bucket = Bucket(address_of(url, "filled"))
        bucket.ensure(create=True)
        fill(tmp_path / "data", bucket, "docs", 20, n_folders)
        found = list(bucket.list("inbox/docs/"))
        assert len(found) == 20
        assert len({ref.key.rpartition("/")[0] for ref in found}) == n_folders
        for ref in found:
            body = bucket.open_version(ref).read()
            assert (ref.size_bytes, ref.etag) == (len(body), hashlib.md5(body).hexdigest())
        before = found[0]
        bucket.put(before.key, body=bucket.get(before.key))
        again = next(ref for ref in bucket.list("inbox/docs/") if ref.key == before.key)
        assert (again.etag, again.size_bytes) == (before.etag, before.size_bytes)


@pytest.mark.parametrize(("figures", "status"), [(FIGURES, 1), (FIGURES[:1], 0)])
def test_the_exit_status_says_whether_a_target_was_missed(
    figures: list[Figure], status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = ModuleType("benchmarks.stand_in")
    module.run = lambda: figures  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.stand_in", module)
    monkeypatch.setattr(program, "names", lambda: ["stand_in"])
    monkeypatch.setattr(program, "write", lambda name, found: write(name, found, tmp_path))
    assert program.main([]) == status
    assert (tmp_path / "stand_in.json").exists()


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["nothing"]) == 2
    assert "nothing: expected some of " in capsys.readouterr().err
