"""Debian's handbooks as plain text: fetched by package name, unpacked beside each other, installed nowhere."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lxml import html

PACKAGES = (
    "python3.11-doc",
    "perl-doc",
    "git-doc",
    "postgresql-doc-15",
    "debian-handbook",
    "debian-reference-en",
    "developers-reference",
    "linux-doc-6.1",
    "python-django-doc",
    "sqlite3-doc",
    "libreoffice-help-en-us",
    "openjdk-17-doc",
    "rust-doc",
    "ghc-doc",
)
_MAX_FILE_BYTES = 4_000_000
_BLOCKS = ("p", "li", "dd", "dt", "td", "th", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "div", "section", "br")
_CHROME = ("head", "script", "style", "nav", "header", "footer", "noscript")
_POD_COMMAND = re.compile(r"^=(?:head\d|item|over|back|cut|pod|begin|end|for|encoding)\b[ \t]*", re.MULTILINE)
_BLANK_LINES = re.compile(r"\s*\n\s*\n\s*")


def pages(folder: Path) -> Iterator[tuple[str, str]]:
    """`(name, text)` of every page of PACKAGES, in a fixed order; packages that `folder` lacks are fetched into it.

    Raises RuntimeError when one cannot be had.
    """
    for package in PACKAGES:
        unpacked = _unpacked(package, folder)
        for path in sorted(unpacked.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < _MAX_FILE_BYTES:
                text = _text(path)
                if text:
                    yield f"{package}/{path.relative_to(unpacked)}", text


def _unpacked(package: str, folder: Path) -> Path:
    """Its files. `apt-get download` needs no root, and no room for what the package depends on."""
    unpacked = folder / package
    if unpacked.exists():
        return unpacked
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise RuntimeError(f"{package}: expected a Debian system, found no {tool!r}; the handbooks are Debian's")
    partial = folder / f"{package}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fetched = subprocess.run(["apt-get", "download", package], cwd=partial, capture_output=True, text=True, check=False)
    archives = list(partial.glob("*.deb"))
    if not archives:
        told = fetched.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise RuntimeError(
            f"{package}: expected a package, apt-get told {told[0]!r}; run 'apt-get update' and try again"
        )
    subprocess.run(["dpkg-deb", "--extract", archives[0], partial / "files"], check=True)
    (partial / "files").rename(unpacked)
    shutil.rmtree(partial)
    return unpacked


def _text(path: Path) -> str | None:
    """Text of a page in one of the formats that handbooks come in. None: it is none of them, or in other words there too."""
    name = path.name.removesuffix(".gz")
    inside = path.parts
    if "html" in inside and "debian-handbook" in inside and "en-US" not in inside:
        return None  # translations
    if name.endswith(".html"):
        # Pages that Sphinx made of sources which are there as well.
        return None if _has_sources(path) else _of_html(_read(path))
    if name.endswith(".pod"):
        return _POD_COMMAND.sub("", _read(path))
    return _read(path) if name.endswith((".rst", ".txt")) else None


def _has_sources(path: Path) -> bool:
    return any((parent / "_sources").exists() or (parent.parent / "rst").exists() for parent in list(path.parents)[:6])


def _of_html(page: str) -> str | None:
    if not page.strip():
        return None
    tree = html.fromstring(page.encode())
    for element in list(tree.iter(*_CHROME)):
        element.drop_tree()
    for element in tree.iter(*_BLOCKS):
        element.tail = "\n\n" + (element.tail or "")
    return _BLANK_LINES.sub("\n\n", tree.text_content())


def _read(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8", "replace")
