"""Benchmarks as a program: what there is to run, what it writes, what its exit status says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks.report import Figure, at_least, at_most, show, told, write

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
    assert "prepare" in program.names()
    assert not {"report", "__main__", "_documentation"} & set(program.names())


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
