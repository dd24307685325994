"""Text extraction: how much of a page's text is found, and how much else, against the sources that pages were made from,
and the memory that it takes to read what is larger than memory.

The Python and Git handbooks ship each page as HTML and as the plain text it was made from. The score is the F1 of the words
that both have, counted with their repetitions, as in SQuAD (Rajpurkar et al. 2016, 6.1); markup of the sources is dropped.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from beam_jobs.formats.columns import Columns
from beam_jobs.formats.html import page_document
from beam_jobs.formats.inflate import Budget
from beam_jobs.formats.source import Source
from beam_jobs.formats.tree_text import html_text
from benchmarks.report import Figure, at_least, at_most, told
from lake.recipe import PrepareRules

PACKAGES = ("python3.11-doc", "git-doc")
PEER = "resiliparse==2.0.1"
N_PAGES = 250  # of each package
MIN_WORDS = 100
MIN_F1 = 0.9
STREAM_BYTES, MAX_ADDED_MB = 1_000_000_000, 150
ROOT = Path(__file__).parent.parent
Extractor = Callable[[str], str]


class Twin(NamedTuple):
    page: str
    text: str


class Score(NamedTuple):
    f1: float
    precision: float
    recall: float
    cpu_ms: float


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder:
        twins = {package: list(_twins(package, Path(folder))) for package in PACKAGES}
        figures = []
        with _peer(Path(folder)) as peer:
            sides: dict[str, Extractor] = {"ours": _ours(), "all text of the page": html_text}
            sides |= {"resiliparse": peer} if peer else {}
            for package, pairs in twins.items():
                for side, extractor in sides.items():
                    figures += _figures(side, package, pairs, extractor)
    return figures + [_memory_figure(format_) for format_ in ("jsonl", "csv")]


def _memory_figure(format_: str) -> Figure:
    """What reading a stream of STREAM_BYTES adds to the memory of a process that has read a small one."""
    asked = [sys.executable, "-m", "benchmarks._stream_side", format_, str(STREAM_BYTES)]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, check=True)
    measured = json.loads(done.stdout)
    what = f"{STREAM_BYTES / 1e9:g} GB made as it is read, {measured['n_documents']} documents"
    return at_most(f"memory for {format_}", measured["added_bytes"] / 1e6, MAX_ADDED_MB, "MB", what)


def _figures(side: str, package: str, pairs: list[Twin], extractor: Extractor) -> list[Figure]:
    scores = [_score(twin, extractor) for twin in pairs]
    mean = Score(*(statistics.fmean(column) for column in zip(*scores, strict=True)))
    what = (
        f"{len(pairs)} pages; precision {mean.precision:.3f}, recall {mean.recall:.3f}; {mean.cpu_ms:.1f} CPU-ms a page"
    )
    name = f"{side}, words of {package}"
    if side == "ours":
        return [at_least(name, mean.f1, MIN_F1, "F1", what)]
    return [told(name, mean.f1, "F1", what)]


def _score(twin: Twin, extractor: Extractor) -> Score:
    started = time.process_time()
    found = _words(extractor(twin.page))
    cpu_ms = (time.process_time() - started) * 1e3
    expected = _words(twin.text)
    n_common = (found & expected).total()
    precision, recall = n_common / max(1, found.total()), n_common / max(1, expected.total())
    return Score(2 * precision * recall / max(1e-9, precision + recall), precision, recall, cpu_ms)


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))


def _ours() -> Extractor:
    rules = PrepareRules()
    source = Source("page.html", rules, Columns.of(rules), None, Budget(1), lambda _content, _source: iter(()))
    return lambda page: page_document(page, "object", source).text


@contextmanager
def _peer(folder: Path) -> Iterator[Extractor | None]:
    """The peer, installed for this run alone; None, and a line that says so, where it cannot be had."""
    asked = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder / "peer"),
        PEER,
    ]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"without {PEER}, which could not be installed: {done.stderr.strip()[-300:]}", file=sys.stderr)
        yield None
        return
    sys.path.append(str(folder / "peer"))
    try:
        from resiliparse.extract.html2text import extract_plain_text

        yield lambda page: str(extract_plain_text(page, main_content=True, alt_texts=False))
    finally:
        sys.path.remove(str(folder / "peer"))


def _twins(package: str, folder: Path) -> Iterator[Twin]:
    """Pages and their sources, the same ones each time."""
    root = _unpacked(package, folder)
    pairs = []
    if package == "git-doc":
        pairs = [(path, path.with_suffix(".txt"), _asciidoc) for path in root.rglob("*.html")]
    else:
        for source in root.rglob("_sources/**/*.rst.txt"):
            home = next(parent for parent in source.parents if parent.name == "_sources")
            page = home.parent / source.relative_to(home).with_name(source.name.replace(".rst.txt", ".html"))
            pairs.append((page, source, _restructured))
    pairs = sorted(pair for pair in pairs if pair[0].is_file() and pair[1].is_file() and not pair[0].is_symlink())
    random.Random(0).shuffle(pairs)
    n_pages = 0
    for page, source, plain in pairs:
        text = plain(source.read_text(encoding="utf-8", errors="replace"))
        if n_pages < N_PAGES and _words(text).total() >= MIN_WORDS:
            n_pages += 1
            yield Twin(page.read_text(encoding="utf-8", errors="replace"), text)


def _unpacked(package: str, folder: Path) -> Path:
    """The package's files, fetched without being installed. Raises RuntimeError where there is no Debian."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise RuntimeError(f"{package}: expected a Debian system, found no {tool!r}; the handbooks are Debian's")
    target = folder / package
    target.mkdir()
    subprocess.run(["apt-get", "download", "-qq", package], cwd=target, check=True, capture_output=True)
    (archive,) = target.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(archive), str(target / "root")], check=True, capture_output=True)
    return target / "root"


def _restructured(text: str) -> str:
    """reStructuredText as its words: without directives' names and options, comments, roles and targets of links."""
    text = re.sub(
        r"^\s*\.\. (?:index|highlight|currentmodule|moduleauthor|sectionauthor|toctree|_|\||module).*$",
        "",
        text,
        flags=re.M,
    )
    text = re.sub(r"^\s*:(?:\w[\w -]*):(?: .*)?$", "", text, flags=re.M)  # options and fields
    text = re.sub(r"\.\. [\w:-]+::", "", text)
    text = re.sub(r":[\w:+-]+:`(?:[^`<]*<)?[!~]?([^`>]*)>?`", r"\1", text)  # :func:`title <name>`
    return re.sub(r"`([^`<]*)<[^>`]*>`_+", r"\1", text)


def _asciidoc(text: str) -> str:
    """AsciiDoc as its words: without attributes, anchors, macros' names and included files."""
    text = re.sub(r"^(?::[\w-]+:.*|\[.*\]|include::.*|(?:if|end)n?def::.*|//.*)$", "", text, flags=re.M)
    text = re.sub(r"\blinkgit:([\w-]+)\[(\d)\]", r"\1 \2", text)
    return re.sub(r"(?:link:\S+?|https?:\S+?|<<[^,>]*,)\[?([^\]>]*)(?:\]|>>)", r"\1", text)
