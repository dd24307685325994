"""What documents are sorted by, as the recipe says."""

from __future__ import annotations

import numpy as np

from beam_jobs.mix.distinctiveness import DocumentFrequencies, document_frequencies, values
from beam_jobs.mix.terms import terms_of
from beam_jobs.mix.value import document_values
from beam_jobs.simhash import fingerprint
from beam_jobs.split import splits_of
from lake.recipe import Mix

TEXTS = [f"the document of tide number {chr(97 + n % 26) * 3} and {chr(97 + n // 26) * 3}" for n in range(600)]
EXACT = np.array([fingerprint(text).exact for text in TEXTS], np.uint64)
NONE = DocumentFrequencies.none()


def test_tfidf_is_distinctiveness() -> None:
    terms = terms_of(TEXTS)
    drop, history = document_frequencies(terms), document_frequencies(terms_of(["the document", "of tide"]))
    found = document_values(Mix(), terms, history, drop, EXACT)
    assert (found == values(terms, history, drop)).all()
    assert len(set(found)) > 1


def test_random_is_the_same_each_time_and_the_same_in_every_split() -> None:
    found = document_values(Mix(value="random"), terms_of([]), NONE, NONE, EXACT)
    again = document_values(Mix(value="random"), terms_of([]), NONE, NONE, EXACT[::-1])
    assert (found == again[::-1]).all()
    assert abs(np.mean(found) - 0.5) < 0.05
    is_test = splits_of(EXACT, 0.0, 0.5) == "test"
    assert abs(found[is_test].mean() - found[~is_test].mean()) < 0.1


def test_arrival_leaves_the_order_as_it_is() -> None:
    assert not document_values(Mix(value="arrival"), terms_of([]), NONE, NONE, EXACT).any()
