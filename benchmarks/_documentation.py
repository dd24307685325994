"""Real text for benchmarks: Debian's handbooks, and the documentation of the packages in this environment.

About 300 MB in 110,000 documents, in an order without any, the same each time. It is made once, in some minutes, and
kept in the user's cache. Beyond that there are copies with a third of their words replaced: no near-duplicates of
anything, and as much work as what they were made of.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import sysconfig
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import xxhash

from benchmarks._edits import edited
from benchmarks._handbooks import PACKAGES, pages
from flows.demo.corpus import docstrings

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidemill-bench"

# Large, and written by many hands. Their docstrings repeat each other as real documentation does.
DOCUMENTED = ("numpy", "pandas", "scipy", "statsmodels", "networkx", "plotly", "transformers", "sympy", "torch")
_VERSION = "3"  # of what is made of the packages below
DOCUMENT_CHARACTERS = 300, 4_000
OBJECT_BYTES = 1_500_000  # of text, in one object
_COPY_SHARE = 1 / 3


class Document(NamedTuple):
    id: str
    text: str


def documents(n_bytes: int) -> Iterator[Document]:
    """Documents of `n_bytes` of text in UTF-8 together, or a little more."""
    for found in _endless():
        if n_bytes <= 0:
            return
        n_bytes -= len(found.text.encode())
        yield found


def objects(n_bytes: int) -> Iterator[tuple[str, bytes]]:
    """The same as objects to drop: `(name, content)`, each a `.jsonl.gz`."""
    for number, batch in enumerate(_batches(documents(n_bytes))):
        lines = "".join(json.dumps(found._asdict()) + "\n" for found in batch)
        yield f"documents-{number:05}.jsonl.gz", gzip.compress(lines.encode(), 1)


def n_bytes_distinct() -> int:
    """How much of it is real: what comes after these bytes are copies."""
    return sum(len(found.text.encode()) for found in _real())


def _endless() -> Iterator[Document]:
    yield from _real()
    vocabulary = sorted({word for found in islice(_real(), 2_000) for word in found.text.split()})
    for copy in count(1):
        for found in _real():
            text = edited(found.text, _COPY_SHARE, f"{copy} {found.id}", vocabulary, "replace")
            yield Document(f"{found.id}~{copy}", text)


def _real() -> Iterator[Document]:
    for path in sorted(_made().iterdir()):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield Document(**json.loads(line))


def _made() -> Path:
    """The folder of the real documents, in the cache."""
    named = " ".join([_VERSION, *PACKAGES, *DOCUMENTED])
    folder = CACHE / f"documents-{xxhash.xxh3_64_hexdigest(named.encode())}"
    if not folder.exists():
        print("making the documents, once, from Debian's handbooks and installed packages …", flush=True)
        found = [*_of_handbooks(), *_of_packages()]
        random.Random(0).shuffle(found)
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for number, batch in enumerate(_batches(found)):
            with gzip.open(partial / f"{number:05}.jsonl.gz", "wt", encoding="utf-8", compresslevel=3) as file:
                file.writelines(json.dumps(each._asdict()) + "\n" for each in batch)
        partial.rename(folder)
    return folder


def _of_handbooks() -> Iterator[Document]:
    shortest, longest = DOCUMENT_CHARACTERS
    for name, text in pages(CACHE / "handbooks"):
        for number, part in enumerate(_cut(text.strip(), longest), start=1):
            if len(part) >= shortest:
                yield Document(f"{name}#{number}", part)


def _of_packages() -> Iterator[Document]:
    site = Path(sysconfig.get_path("purelib"))
    for package in DOCUMENTED:
        for found in docstrings(site / package, package):
            if len(found.text) >= DOCUMENT_CHARACTERS[0]:
                yield Document(found.name, found.text)


def _cut(text: str, longest: int) -> Iterator[str]:
    """Paragraphs together as long as they are short enough; a longer one is cut. Not the product's: texts stay as they are."""
    taken = ""
    for paragraph in text.split("\n\n"):
        if taken and len(taken) + len(paragraph) > longest:
            yield taken
            taken = ""
        taken = f"{taken}\n\n{paragraph}" if taken else paragraph
        while len(taken) > longest:
            yield taken[:longest]
            taken = taken[longest:]
    yield taken


def _batches(found: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    n_bytes = 0
    for each in found:
        batch.append(each)
        n_bytes += len(each.text)
        if n_bytes >= OBJECT_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch
