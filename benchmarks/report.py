"""What a benchmark found: figures, as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter
from rich.console import Console
from rich.table import Table

OUT = Path(__file__).parent / "out"


class Figure(BaseModel):
    """One number. `target` is None where there is nothing to reach, and `ok` then too; `how` says what was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: float
    unit: str
    target: str | None
    ok: bool | None
    how: str


def at_most(name: str, value: float, limit: float, unit: str, how: str) -> Figure:
    return Figure(name=name, value=value, unit=unit, target=f"≤ {limit:g}", ok=value <= limit, how=how)


def at_least(name: str, value: float, limit: float, unit: str, how: str) -> Figure:
    return Figure(name=name, value=value, unit=unit, target=f"≥ {limit:g}", ok=value >= limit, how=how)


def told(name: str, value: float, unit: str, how: str) -> Figure:
    """A figure without a target."""
    return Figure(name=name, value=value, unit=unit, target=None, ok=None, how=how)


def show(benchmark: str, figures: Sequence[Figure], console: Console) -> None:
    table = Table(title=benchmark, title_justify="left", title_style="bold")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("target", justify="right")
    table.add_column("how", style="dim", overflow="fold")
    for figure in figures:
        style = {True: "green", False: "red", None: ""}[figure.ok]
        value = f"[{style}]{figure.value:.4g} {figure.unit}[/]" if style else f"{figure.value:.4g} {figure.unit}"
        table.add_row(figure.name, value, figure.target or "", figure.how)
    console.print(table)


def write(benchmark: str, figures: Sequence[Figure], folder: Path = OUT) -> Path:
    """Write `<folder>/<benchmark>.json`: a list of figures. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{benchmark}.json"
    path.write_bytes(TypeAdapter(list[Figure]).dump_json(list(figures), indent=1) + b"\n")
    return path
