"""Lines that many documents share: menus, footers, licences. Counted across a drop by their hashes, then left out."""

from __future__ import annotations

import numpy as np
import xxhash
from numpy.typing import NDArray

from beam_jobs.simhash import Hashes
from lake.recipe.quality import Boilerplate


def line_hashes(text: str, rules: Boilerplate) -> Hashes:
    """uint64, sorted and unique: one for each line that is long enough to be boilerplate."""
    lines = {normal for normal in map(_normal, text.split("\n")) if len(normal) >= rules.min_line_characters}
    return np.sort(_hashes(list(lines)))


def common_lines(hashes: Hashes, counts: NDArray[np.int64], n_documents: int, rules: Boilerplate) -> Hashes:
    """Sorted uint64: of the unique `hashes`, those that enough of the drop's `n_documents` documents have.

    `counts`, as long as `hashes`, are the documents that each line stands in.
    """
    return np.sort(hashes[counts >= max(rules.min_documents, rules.min_share * n_documents)])


def without_lines(text: str, common: Hashes) -> tuple[str, int]:
    """The text without the lines that are in `common` (sorted, from `common_lines`), and how many they were."""
    if not len(common):
        return text, 0
    lines = text.split("\n")
    hashes = _hashes(list(map(_normal, lines)))
    places = np.searchsorted(common, hashes)
    is_common = common[np.minimum(places, len(common) - 1)] == hashes
    if not is_common.any():
        return text, 0
    kept = [line for line, is_left_out in zip(lines, is_common.tolist(), strict=True) if not is_left_out]
    return "\n".join(kept), len(lines) - len(kept)


def _normal(line: str) -> str:
    """Case and spacing do not make another line."""
    return " ".join(line.split()).casefold()


def _hashes(lines: list[str]) -> Hashes:
    # Of text that is not repaired yet: half a surrogate pair is no UTF-8.
    hashed = (xxhash.xxh3_64_intdigest(line.encode("utf-8", "surrogatepass")) for line in lines)
    return np.fromiter(hashed, np.uint64, len(lines))
