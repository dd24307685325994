"""Real text for benchmarks: the documentation of the packages in this environment, as objects to drop."""

from __future__ import annotations

import gzip
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from flows.demo.corpus import docstrings

# Large, and written by many hands. Their docstrings repeat each other as real documentation does.
_PACKAGES = ("numpy", "pandas", "scipy", "statsmodels", "networkx")
_SUFFIXES = {".rst", ".md", ".txt"}
_MAX_FILE_BYTES = 400_000  # longer text files are data


def objects() -> Iterator[tuple[str, bytes]]:
    """`(name, content)`: one `.jsonl.gz` a package, one `.txt` a documentation file; about 20 MB of text, unpacked."""
    site = Path(sysconfig.get_path("purelib"))
    for name in _PACKAGES:
        documents = [{"id": found.name, "text": found.text} for found in docstrings(site / name, name)]
        yield f"{name}.jsonl.gz", gzip.compress("".join(json.dumps(each) + "\n" for each in documents).encode(), 6)
    for path in sorted(site.rglob("*")):
        wanted = path.suffix in _SUFFIXES or path.name == "METADATA"
        if wanted and path.is_file() and 200 < path.stat().st_size < _MAX_FILE_BYTES:
            yield f"{'-'.join(path.relative_to(site).parts)}.txt", path.read_bytes()
