"""Head, middle and tail: how a document's perplexity compares with that of documents known to be good.

Cut at terciles of a reference distribution, as CCNet does (Wenzek et al. 2020, section 3.4).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bucket = Literal["head", "middle", "tail"]
BUCKETS: tuple[Bucket, ...] = ("head", "middle", "tail")


class Thresholds(NamedTuple):
    """Perplexities where the middle and where the tail begin, exclusively: `middle` itself is head still."""

    middle: float
    tail: float


def terciles(perplexities: NDArray[np.float64], rejected_share: float = 0.0) -> Thresholds:
    """Thresholds from perplexities `[n]` of reference documents, all scored; n ≥ 1.

    `rejected_share` in [0, 1): of what the reference was drawn from, the share that an earlier `drop` has taken away
    at the top. A quantile q of everything is q / (1 - rejected_share) of what is left; without this, every drop would
    be cut by a third of what the cuts before it have left. It holds too when only a sample was judged.
    """
    left = np.minimum(np.array([1 / 3, 2 / 3]) / (1 - rejected_share), 1.0)
    middle, tail = np.quantile(perplexities, left)
    return Thresholds(float(middle), float(tail))


def bucket_of(perplexity: NDArray[np.float64], thresholds: Thresholds) -> list[Bucket | None]:
    """Bucket of each of `[n]`; None for NaN, a document that was not scored."""
    places = np.searchsorted(thresholds, perplexity, side="left")
    return [None if np.isnan(value) else BUCKETS[place] for value, place in zip(perplexity, places, strict=True)]
