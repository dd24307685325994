from __future__ import annotations

import itertools

import numpy as np
import pytest

from checks.mmd import mmd_permutation_test


def slow_mmd2(reference: np.ndarray, current: np.ndarray) -> float:
    """Equation 3 of Gretton et al., 2012, term by term."""
    rows = np.concatenate([reference, current])
    pairs = list(itertools.combinations(range(len(rows)), 2))
    width = np.median([((rows[i] - rows[j]) ** 2).sum() for i, j in pairs])

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.exp(-((x - y) ** 2).sum() / width))

    n, m = len(reference), len(current)
    within = sum(kernel(a, b) for i, a in enumerate(reference) for j, b in enumerate(reference) if i != j)
    others = sum(kernel(a, b) for i, a in enumerate(current) for j, b in enumerate(current) if i != j)
    across = sum(kernel(a, b) for a in reference for b in current)
    return within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * across / (n * m)


@pytest.mark.parametrize(("n", "m", "shift"), [(12, 9, 0.0), (9, 12, 0.7), (2, 2, 3.0), (5, 2, 0.0)])
def test_the_statistic_is_the_papers(n: int, m: int, shift: float) -> None:
    rng = np.random.default_rng(1)
    reference, current = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + shift
    statistic, _ = mmd_permutation_test(reference, current, 10, seed=0)
    assert statistic == pytest.approx(slow_mmd2(reference, current), abs=1e-12)


def test_the_p_value_is_exact_where_every_split_can_be_counted() -> None:
    rng = np.random.default_rng(3)
    rows = np.concatenate([rng.normal(size=(3, 2)), rng.normal(size=(4, 2)) + 1.0])
    observed = slow_mmd2(rows[:3], rows[3:])
    splits = [list(some) for some in itertools.combinations(range(7), 3)]
    values = [slow_mmd2(rows[some], np.delete(rows, some, axis=0)) for some in splits]
    exact = sum(value >= observed - 1e-12 for value in values) / len(splits)
    _, p_value = mmd_permutation_test(rows[:3], rows[3:], 20_000, seed=0)
    # The standard deviation of the estimate is at most 0.0036.
    assert p_value == pytest.approx(exact, abs=0.015)


def test_p_values_are_uniform_when_nothing_has_changed() -> None:
    rng = np.random.default_rng(7)
    values = np.array(
        [
            mmd_permutation_test(rng.normal(size=(14, 4)), rng.normal(size=(10, 4)), 199, seed=number)[1]
            for number in range(400)
        ]
    )
    # Kolmogorov-Smirnov's bound for 400 values at 0.1 %: 1.95 / √400
    ranks = np.arange(1, 401) / 400
    assert np.abs(np.sort(values) - ranks).max() < 0.0975
    assert (values <= 0.05).mean() <= 0.09  # 0.05 and 3.7 standard deviations of 400 draws


def test_a_shifted_sample_is_detected() -> None:
    rng = np.random.default_rng(5)
    reference = rng.normal(size=(60, 8))
    mixed = np.concatenate([rng.normal(size=(20, 8)), rng.normal(size=(20, 8)) + 1.5])
    statistic, p_value = mmd_permutation_test(reference, mixed, 999, seed=0)
    assert statistic > 0
    assert p_value == 1 / 1000  # none of the permutations came near


def test_a_p_value_is_never_0_and_counts_ties() -> None:
    same = np.ones((4, 2))
    statistic, p_value = mmd_permutation_test(same, same.copy(), 99, seed=0)
    assert statistic == pytest.approx(0)
    assert p_value == 1


def test_the_same_seed_gives_the_same_p_value() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    assert mmd_permutation_test(a, b, 2_500, seed=4) == mmd_permutation_test(a, b, 2_500, seed=4)
    assert mmd_permutation_test(a, b, 2_500, seed=4) != mmd_permutation_test(a, b, 2_500, seed=5)


@pytest.mark.parametrize("bad", [np.zeros((1, 3)), np.zeros(3), np.full((3, 3), np.nan)])
def test_what_is_no_sample_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="current has shape"):
        mmd_permutation_test(np.ones((3, 3)), bad, 10, seed=0)
