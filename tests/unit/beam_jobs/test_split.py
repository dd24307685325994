"""Splits: stable, of the sizes asked for, the same for every copy of a text."""

from __future__ import annotations

import numpy as np
import pytest

from beam_jobs.simhash import fingerprint
from beam_jobs.split import splits_of

EXACT = np.array([fingerprint(f"document number {n}").exact for n in range(20_000)], np.uint64)


@pytest.mark.parametrize(("validation_share", "test_share"), [(0.05, 0.05), (0.2, 0.1), (0.0, 0.0), (0.5, 0.0)])
def test_shares_are_those_asked_for(validation_share: float, test_share: float) -> None:
    found = splits_of(EXACT, validation_share, test_share)
    assert np.mean(found == "test") == pytest.approx(test_share, abs=0.01)
    assert np.mean(found == "validation") == pytest.approx(validation_share, abs=0.01)
    assert set(found) <= {"train", "validation", "test"}


def test_a_document_stays_where_it_is_whatever_comes_with_it() -> None:
    found = splits_of(EXACT, 0.05, 0.05)
    assert (splits_of(EXACT[::-1][:500], 0.05, 0.05) == found[::-1][:500]).all()


def test_a_larger_test_share_takes_nothing_out_of_the_test_split() -> None:
    smaller, larger = splits_of(EXACT, 0.05, 0.05), splits_of(EXACT, 0.05, 0.1)
    assert (larger[smaller == "test"] == "test").all()


def test_copies_are_on_one_side() -> None:
    copies = np.array([fingerprint(text).exact for text in ("One two, THREE.", "one  two three")], np.uint64)
    assert len(set(splits_of(copies, 0.4, 0.4))) == 1


def test_the_place_of_known_documents_does_not_change_between_versions() -> None:
    # A change here moves documents of old datasets from test to train: models would be judged on what they have seen.
    places = {"train": "-", "validation": "v", "test": "t"}
    assert "".join(places[found] for found in splits_of(EXACT[:12], 0.25, 0.25)) == "v-vv--tt----"


def test_nothing() -> None:
    assert splits_of(np.zeros(0, np.uint64), 0.1, 0.1).tolist() == []
