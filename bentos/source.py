"""The source files that a served model needs: copied into its bento, so that it runs without this repository."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("bentos", "lake")


def source_closure(*modules: str) -> tuple[Path, ...]:
    """Files of the modules and of all that they import from our packages, anywhere in them; relative to ROOT."""
    found: set[Path] = set()
    todo = list(modules)
    while todo:
        path = _file_of(todo.pop())
        if path is None or path in found:
            continue
        found.add(path)
        todo.extend(_imports(ROOT / path))
    return tuple(sorted(found))


def copy_source(files: tuple[Path, ...], folder: Path) -> None:
    """Mirror the files into `folder`."""
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / path)


def _imports(path: Path) -> Iterator[str]:
    """Modules of our packages that a file names, each with the packages it lies in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] in PACKAGES:
                yield from (".".join(parts[:n]) for n in range(1, len(parts) + 1))


def _file_of(module: str) -> Path | None:
    """A module's file relative to ROOT; None for a name that is no module, as of a class that is imported."""
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (ROOT / candidate).is_file():
            return candidate
    return None
