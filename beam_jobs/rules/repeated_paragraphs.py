"""Paragraphs that have stood before in the drop: exact repeats between documents that are no duplicates as a whole.

Lee et al. (2022) find that models trained on text without repeats emit memorised text a tenth as often; CCNet
(Wenzek et al. 2020) drops repeated paragraphs by their hash, as this does. The first occurrence stays.
"""

from __future__ import annotations

import re

import numpy as np
import xxhash
from numpy.typing import NDArray

from beam_jobs.simhash import Hashes
from lake.recipe.quality import Paragraphs

_END = re.compile(r"(\n[^\S\n]*(?:\n[^\S\n]*)+)")


def paragraph_hashes(text: str, rules: Paragraphs) -> Hashes:
    """uint64 `[n_paragraphs]`, in order: one for each paragraph that is long enough to count, repeats included."""
    counted = [normal for normal in map(_normal, _END.split(text)[::2]) if len(normal) >= rules.min_characters]
    # Of text that is not repaired yet: half a surrogate pair is no UTF-8.
    hashed = (xxhash.xxh3_64_intdigest(normal.encode("utf-8", "surrogatepass")) for normal in counted)
    return np.fromiter(hashed, np.uint64, len(counted))


def without_paragraphs(text: str, repeated: NDArray[np.bool_], rules: Paragraphs) -> tuple[str, int]:
    """The text without its repeated paragraphs, and how many they were.

    `repeated`: bool `[n_paragraphs]`, in the order of `paragraph_hashes` of the same text and rules. Raises ValueError
    when it has another length.
    """
    pieces = _END.split(text)  # paragraph, end, paragraph, end, …
    counted = [place for place in range(0, len(pieces), 2) if len(_normal(pieces[place])) >= rules.min_characters]
    if len(counted) != len(repeated):
        raise ValueError(f"{len(repeated)} flags, expected {len(counted)}: one a paragraph of {rules.min_characters}")
    if not repeated.any():
        return text, 0
    left_out = {place for place, is_repeated in zip(counted, repeated.tolist(), strict=True) if is_repeated}
    kept = [piece for place, piece in enumerate(pieces) if place not in left_out and place - 1 not in left_out]
    return "".join(kept), len(left_out)


def _normal(paragraph: str) -> str:
    """Case, spacing and line breaks do not make another paragraph."""
    return " ".join(paragraph.split()).casefold()
