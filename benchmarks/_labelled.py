"""Documents with near-duplicates among them, and the pairs that are: what a search for duplicates is judged by.

Two released versions of the same packages' documentation, and copies with 1 to 20 % of their words edited. Which pairs
are near-duplicates is no opinion: their exact Jaccard similarity decides.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from benchmarks._documentation import CACHE
from benchmarks._edits import edited
from benchmarks._exact_jaccard import similar_pairs, words_of
from flows.demo.corpus import docstrings

MIN_JACCARD = 0.8
# Released two to three years before those in requirements.lock. Named, and only unpacked: nothing of them is imported.
EARLIER = ("numpy==1.26.4", "pandas==2.0.3", "scipy==1.11.4", "networkx==3.1", "statsmodels==0.14.1")
EDITED_SHARES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)
COPIES_EACH = 400


class Labelled(NamedTuple):
    """Texts, and all pairs int64 `[n, 2]` of them that are near-duplicates, with their exact similarity."""

    texts: list[str]
    pairs: NDArray[np.int64]
    similarities: NDArray[np.float64]
    n_versions: int  # texts that are not edited copies


def labelled(packages: Sequence[str] = EARLIER) -> Labelled:
    """The set, in the order of arrival: the earlier versions, the current ones, the edited copies; same each time.

    Without exact copies, which finding takes no skill.
    """
    versions = list(_distinct([*_earlier(packages), *_current(packages)]))
    texts = list(_distinct([*versions, *_edited(versions)]))
    pairs, similarities = similar_pairs(texts, MIN_JACCARD)
    return Labelled(texts, pairs, similarities, len(versions))


def _earlier(packages: Sequence[str]) -> Iterator[str]:
    folder = _unpacked_earlier()
    for package in packages:
        name = package.partition("==")[0]
        yield from (found.text for found in docstrings(folder / name, name))


def _current(packages: Sequence[str]) -> Iterator[str]:
    site = Path(sysconfig.get_path("purelib"))
    for package in packages:
        name = package.partition("==")[0]
        yield from (found.text for found in docstrings(site / name, name))


def _edited(versions: list[str]) -> Iterator[str]:
    draw = random.Random(0)
    vocabulary = sorted({word for text in versions[::50] for word in text.split()})
    for share in EDITED_SHARES:
        for number in sorted(draw.sample(range(len(versions)), min(COPIES_EACH, len(versions)))):
            yield edited(versions[number], share, f"{share} {number}", vocabulary)


def _distinct(texts: Iterable[str]) -> Iterator[str]:
    """The first of each with the same words."""
    seen: set[tuple[str, ...]] = set()
    for text in texts:
        words = words_of(text)
        if words not in seen:
            seen.add(words)
            yield text


def _unpacked_earlier() -> Path:
    """The earlier versions' folder, in the cache."""
    folder = CACHE / f"earlier-{xxhash.xxh3_64_hexdigest(' '.join(EARLIER).encode())}"
    if not folder.exists():
        uv = Path(sys.executable).with_name("uv")
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        # Named versions, and no build: unpacking is all that happens.
        command = [
            str(uv),
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--target",
            str(partial),
        ]
        done = subprocess.run([*command, *EARLIER], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"earlier releases: expected {', '.join(EARLIER)}, uv told: {done.stderr[-1_000:]}")
        partial.rename(folder)
    return folder
