"""Which split a document belongs to: by a stable hash, so that it stays there whatever else is dropped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beam_jobs.simhash import Hashes


def splits_of(exact: Hashes, validation_share: float, test_share: float) -> NDArray[np.str_]:
    """Split by the hash of the words: two copies of a text can never be on both sides of a split."""
    # The top bits of xxh3 are uniform; 2**-32 is fine enough for any share.
    place = (exact >> np.uint64(32)) / 2**32
    return np.select([place < test_share, place < test_share + validation_share], ["test", "validation"], "train")
