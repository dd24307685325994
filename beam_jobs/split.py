"""Which split a document belongs to: by a stable hash, so that it stays there whatever else is dropped."""

from __future__ import annotations

import numpy as np

from lake.records import Split


def split_of(exact: np.uint64 | int, validation_share: float, test_share: float) -> Split:
    """Split by the hash of the words: two copies of a text can never be on both sides of a split."""
    # The top bits of xxh3 are uniform; 2**-32 is fine enough for any share.
    place = (int(exact) >> 32) / 2**32
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"
