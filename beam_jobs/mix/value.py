"""Which documents of a domain come first, by the recipe."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beam_jobs.mix.distinctiveness import DocumentFrequencies, values
from beam_jobs.mix.terms import Terms
from beam_jobs.simhash import Hashes
from lake.recipe import Mix


def document_values(
    mix: Mix, terms: Terms, history: DocumentFrequencies, drop: DocumentFrequencies, exact: Hashes
) -> NDArray[np.float64]:
    """What `select` sorts by: float64 `[n_documents]`. `exact` uint64 `[n_documents]` are the hashes of the words.

    `terms`, `history` and `drop` are read for `tfidf` alone; without it, empty ones do.
    """
    if mix.value == "tfidf":
        return values(terms, history, drop)
    if mix.value == "random":
        # The low half of the hash: the high one says which split a document is in.
        return np.asarray((exact & np.uint64(0xFFFFFFFF)) / 2**32, np.float64)
    return np.zeros(len(exact))
