"""Real prose of three subjects, from what is installed: licences, statistics, and network programming."""

from __future__ import annotations

import ast
import email
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

MIN_CHARACTERS, MAX_CHARACTERS = 400, 3_000
NETWORK = [
    "asyncio",
    "http",
    "email",
    "socketserver.py",
    "ftplib.py",
    "imaplib.py",
    "smtplib.py",
    "ssl.py",
    "socket.py",
]
NETWORK += ["urllib", "xmlrpc", "wsgiref", "selectors.py", "poplib.py", "telnetlib.py", "nntplib.py"]


@pytest.fixture(scope="session")
def real_texts() -> dict[str, tuple[list[str], list[str]]]:
    """Documents by domain, `(those to learn from, those held out)`: no file has documents in both."""
    library = Path(email.__file__).parents[1]
    packages = Path(sysconfig.get_paths()["purelib"])
    network = [path for name in NETWORK for path in _python_files(library / name)]
    statistics = [path for path in _python_files(packages / "scipy" / "stats") if path.stat().st_size < 120_000]
    licences = {path.read_text(errors="ignore") for path in packages.glob("*.dist-info/**/LICENSE*") if path.is_file()}
    pieces = {
        "law": [list(_pieces(text)) for text in sorted(licences)],
        "statistics": [list(_pieces(_docstrings(path))) for path in statistics],
        "network": [list(_pieces(_docstrings(path))) for path in network],
    }
    return {
        domain: (
            list(dict.fromkeys(text for file in files[::2] for text in file)),
            list(dict.fromkeys(text for file in files[1::2] for text in file)),
        )
        for domain, files in pieces.items()
    }


def _python_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.glob("*.py"))


def _docstrings(path: Path) -> str:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, documented)]
    return "\n\n".join(filter(None, map(ast.get_docstring, nodes)))


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), MAX_CHARACTERS):
        piece = text[start : start + MAX_CHARACTERS]
        if len(piece) >= MIN_CHARACTERS:
            yield piece
