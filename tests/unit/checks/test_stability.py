from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.stability import MAJOR_CHANGE, stability_index, stability_of_categories, stability_of_numbers

N = 200  # the fewest documents that are compared, see CheckRules.min_drift_documents
COUNTS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=20)


def test_the_textbook_value() -> None:
    # 0.1 ln(0.3/0.2) - 0.1 ln(0.2/0.3) by hand; the smoothing of 0.5 per bin vanishes at these counts
    counts = np.array([200_000, 300_000, 500_000]), np.array([300_000, 200_000, 500_000])
    assert stability_index(*counts) == pytest.approx(0.2 * math.log(1.5), abs=1e-5)


@given(COUNTS)
def test_it_is_a_symmetric_measure_of_difference(counts: list[tuple[int, int]]) -> None:
    a, b = (np.array(side) for side in zip(*counts, strict=True))
    if not (a.sum() and b.sum()):
        with pytest.raises(ValueError, match="some counts"):
            stability_index(a, b)
        return
    assert math.isfinite(stability_index(a, b))
    assert stability_index(a, b) == pytest.approx(stability_index(b, a))
    assert stability_index(a, b) >= 0
    assert stability_index(a, a) == 0


def lengths(rng: np.random.Generator, scale: float = 1.0, n: int = N) -> list[float]:
    """As text has them: log-normal, in tokens."""
    return [float(round(value)) for value in scale * np.exp(rng.normal(5, 0.9, n))]


def test_the_smallest_samples_of_one_source_seldom_differ() -> None:
    rng = np.random.default_rng(0)
    alarms = [stability_of_numbers(lengths(rng), lengths(rng)) > MAJOR_CHANGE for _ in range(500)]
    assert sum(alarms) <= 10  # 2%, of what only warns; with 500 documents a side there are none


def test_documents_of_twice_the_length_differ_always() -> None:
    rng = np.random.default_rng(1)
    assert all(stability_of_numbers(lengths(rng), lengths(rng, 2.0)) > MAJOR_CHANGE for _ in range(200))


def test_numbers_that_are_all_the_same_are_one_bin_and_what_is_beyond() -> None:
    assert stability_of_numbers([5.0] * N, [5.0] * N) == 0
    assert stability_of_numbers([5.0] * N, [9.0] * N) > MAJOR_CHANGE


def test_a_quarter_in_a_new_language_differs_and_a_hundredth_does_not() -> None:
    before = {"en": 95 * N, "de": 5 * N}
    assert stability_of_categories(before, {"en": 70 * N, "de": 5 * N, "fr": 25 * N}) > MAJOR_CHANGE
    assert stability_of_categories(before, {"en": 94 * N, "de": 5 * N, "fr": N}) < MAJOR_CHANGE


def test_many_rare_categories_do_not_add_up_to_an_alarm() -> None:
    rng = np.random.default_rng(2)
    shares = np.array([0.5, *np.full(50, 0.01)])
    draws = [dict(enumerate(rng.multinomial(N, shares).tolist())) for _ in range(200)]
    alarms = [stability_of_categories(a, b) > MAJOR_CHANGE for a, b in zip(draws[::2], draws[1::2], strict=True)]
    assert sum(alarms) <= 1
