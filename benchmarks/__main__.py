"""`python -m benchmarks [NAME…]`: run all benchmarks or some, print a table of each, write `benchmarks/out/<name>.json`.

A benchmark is a module of this package with `run() -> list[Figure]`; modules that begin with an underscore are not.
Exit status 1 when a figure misses its target.
"""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path

from rich.console import Console

from benchmarks.report import show, write


def names() -> list[str]:
    found = {module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])}
    return sorted(name for name in found - {"report"} if not name.startswith("_"))


def main(asked: list[str]) -> int:
    unknown = sorted(set(asked) - set(names()))
    if unknown:
        print(f"{', '.join(unknown)}: expected some of {', '.join(names())}", file=sys.stderr)
        return 2
    console, missed = Console(), []
    for name in asked or names():
        console.print(f"[bold]{name}[/] …")
        figures = import_module(f"benchmarks.{name}").run()
        show(name, figures, console)
        console.print(f"written to {write(name, figures)}", style="dim", soft_wrap=True)
        missed += [f"{name}: {figure.name}" for figure in figures if figure.ok is False]
    for miss in missed:
        console.print(f"missed its target: {miss}", style="red")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
