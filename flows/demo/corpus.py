"""Real English technical text that is on every machine with this environment: the documentation of its packages.

Nothing is imported to get at it: docstrings are read from the sources, AWS' service documentation from botocore's data.
"""

from __future__ import annotations

import ast
import gzip
import importlib
import importlib.util
import json
import pydoc
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MIN_CHARACTERS = 200
_SKIPPED = {"site-packages", "test", "tests", "idlelib", "lib2to3", "tkinter", "__pycache__", "ensurepip", "pydoc_data"}
_PAGES = (
    "argparse",
    "asyncio",
    "collections",
    "decimal",
    "email",
    "fractions",
    "json",
    "logging",
    "pathlib",
    "statistics",
)
_SERVICES = ("s3", "sqs", "lambda", "dynamodb", "ec2", "iam", "cloudwatch", "rds", "ecs", "sns", "kms", "route53")
_OPERATIONS_PER_SERVICE = 35
_TAG = re.compile(r"<[^>]+>")


@dataclass(frozen=True)
class Document:
    """`name` is what the text documents: a module, class, function or service operation."""

    name: str
    text: str


def write_subject(subject: str, folder: Path) -> list[Path]:
    """Write a subject's documents as objects to drop; returns the files.

    `python` comes as `.jsonl.gz`, `.txt` and `.html`, with a truncated gzip and a wrongly encoded file among them;
    `science` as `.parquet` and `.jsonl.gz`; `cloud` as `.html` and `.jsonl.gz`. Raises ValueError for other subjects.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if subject not in _WRITERS:
        raise ValueError(f"subject={subject!r}, expected one of {', '.join(_WRITERS)}")
    _WRITERS[subject](folder)
    return sorted(path for path in folder.iterdir() if path.is_file())


def questions(subject: str, n: int) -> list[str]:
    """`n` questions that a user of the subject's packages would ask, each about another document."""
    documents = [document for document in _DOCUMENTS[subject]() if len(_summary(document)) > 20]
    step = max(1, len(documents) // n)
    forms = ("What does {name} do? {summary}", "How do I use {name}? {summary}", "Explain {name}: {summary}")
    return [
        forms[place % len(forms)].format(name=document.name, summary=_summary(document))
        for place, document in enumerate(documents[::step][:n])
    ]


def docstrings(package: Path, name: str) -> Iterator[Document]:
    """Docstrings of a package folder (or one module file), read from the source."""
    files = sorted(package.rglob("*.py")) if package.is_dir() else [package]
    for path in files:
        inside = path.relative_to(package) if package.is_dir() else Path(path.name)
        if _SKIPPED.intersection(inside.parts):
            continue
        module = ".".join([name, *inside.with_suffix("").parts] if package.is_dir() else [name])
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # templates and deliberate counter-examples
            continue
        yield from _of_tree(tree, module.removesuffix(".__init__"))


def _of_tree(tree: ast.AST, name: str) -> Iterator[Document]:
    if isinstance(tree, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(tree)
        if text and len(text) >= MIN_CHARACTERS:
            yield Document(name, text)
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _of_tree(child, f"{name}.{child.name}")


@cache
def _python() -> tuple[Document, ...]:
    library = Path(sysconfig.get_path("stdlib"))
    entries = sorted(entry for entry in library.iterdir() if entry.name not in _SKIPPED)
    return tuple(
        document
        for entry in entries
        if entry.suffix == ".py" or (entry / "__init__.py").exists()
        for document in docstrings(entry, entry.stem)
    )


@cache
def _science() -> tuple[Document, ...]:
    return tuple(document for name in ("numpy", "pandas") for document in docstrings(_package(name), name))


@cache
def _cloud() -> tuple[Document, ...]:
    return tuple(
        Document(f"{service} {operation}", _plain(markup))
        for service in _SERVICES
        for operation, markup in _operations(service)
        if len(_plain(markup)) >= MIN_CHARACTERS
    )


def _write_python(folder: Path) -> None:
    from pydoc_data.topics import topics

    documents = _python()
    third = len(documents) // 3
    _jsonl_gz(folder / "stdlib-a.jsonl.gz", documents[:third])
    _jsonl_gz(folder / "stdlib-b.jsonl.gz", documents[third : 2 * third])
    whole = folder / "stdlib-c.jsonl.gz"
    _jsonl_gz(whole, documents[2 * third :])
    # An upload that broke off: its readable part is kept, and most of it is in the whole file too.
    packed = whole.read_bytes()
    (folder / "stdlib-c-again.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    for name, text in sorted(topics.items()):
        (folder / f"topic-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.txt").write_text(text)
    for name in _PAGES:
        (folder / f"{name}.html").write_text(pydoc.html.page(name, pydoc.html.document(importlib.import_module(name))))
    # Saved on Windows: not UTF-8, and no one says so.
    (folder / "string-methods-windows.txt").write_bytes(topics["string-methods"].encode("cp1252", "replace"))


def _write_science(folder: Path) -> None:
    pandas = list(docstrings(_package("pandas"), "pandas"))
    table = pa.table({"id": [document.name for document in pandas], "text": [document.text for document in pandas]})
    pq.write_table(table, folder / "pandas.parquet")
    _jsonl_gz(folder / "numpy.jsonl.gz", docstrings(_package("numpy"), "numpy"))


def _write_cloud(folder: Path) -> None:
    for service in _SERVICES[:4]:
        sections = "".join(f"<section><h2>{name}</h2>{markup}</section>" for name, markup in _operations(service))
        page = f"<!DOCTYPE html><html><head><title>{service}</title></head><body><main><h1>{service}</h1>{sections}</main></body></html>"
        (folder / f"{service}.html").write_text(page)
    in_pages = tuple(f"{service} " for service in _SERVICES[:4])
    _jsonl_gz(folder / "services.jsonl.gz", (d for d in _cloud() if not d.name.startswith(in_pages)))


def _jsonl_gz(path: Path, documents: Iterable[Document]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for document in documents:
            file.write(json.dumps({"id": document.name, "text": document.text}) + "\n")


def _operations(service: str) -> Iterator[tuple[str, str]]:
    """`(operation, HTML)` of a service's newest API description in botocore."""
    newest = sorted((_package("botocore") / "data" / service).glob("*/service-2.json*"))[-1]
    packed = newest.read_bytes()
    told = json.loads(gzip.decompress(packed) if newest.suffix == ".gz" else packed)
    names = sorted(name for name, operation in told["operations"].items() if operation.get("documentation"))
    for name in names[:_OPERATIONS_PER_SERVICE]:
        yield name, told["operations"][name]["documentation"]


def _plain(markup: str) -> str:
    return " ".join(_TAG.sub(" ", markup).split())


def _summary(document: Document) -> str:
    """The first sentence, cut to what a person would type."""
    return re.split(r"(?<=[.!?])\s|\n\n", document.text.strip(), maxsplit=1)[0].replace("\n", " ")[:160]


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ValueError(f"package {name!r} is not installed; run 'make .venv'")
    return Path(spec.origin).parent


_DOCUMENTS: dict[str, Callable[[], tuple[Document, ...]]] = {"python": _python, "science": _science, "cloud": _cloud}
_WRITERS: dict[str, Callable[[Path], None]] = {
    "python": _write_python,
    "science": _write_science,
    "cloud": _write_cloud,
}
