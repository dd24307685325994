"""How many tokens groups can give, against a linear program's answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from beam_jobs.mix.apportion import fill, largest_total, plan, spread

GROUPS = st.lists(st.tuples(st.integers(0, 1_000), st.integers(1, 100)), min_size=1, max_size=5)


def optimum(available: list[int], quotas: list[float], tolerance: float, most: float) -> float:
    """Maximise the sum of s, 0 ≤ s ≤ available, |s - quota · sum(s)| ≤ tolerance · sum(s), sum(s) ≤ most."""
    n = len(available)
    shares = np.repeat(np.array(quotas)[:, None], n, axis=1)
    rows = np.concatenate([np.eye(n) - shares - tolerance, shares - tolerance - np.eye(n), np.ones((1, n))])
    found = linprog(-np.ones(n), A_ub=rows, b_ub=[*[0] * 2 * n, most], bounds=[(0, a) for a in available])
    return float(-found.fun)


@given(GROUPS, st.sampled_from([0.0, 0.01, 0.05, 0.3]), st.sampled_from([50, 500, 10_000]))
@settings(max_examples=150, deadline=None)
def test_the_largest_total_is_that_of_a_linear_program(
    groups: list[tuple[int, int]], tolerance: float, most: int
) -> None:
    available, weights = zip(*groups, strict=True)
    quotas = np.array(weights) / sum(weights)
    has = np.array(available, float)
    total = largest_total(has, quotas, tolerance, most)
    assert total == pytest.approx(optimum(list(available), quotas.tolist(), tolerance, most), rel=1e-6, abs=1e-4)
    given_ = spread(has, quotas, tolerance, total)
    assert given_.sum() == pytest.approx(total, abs=1e-6 * (1 + total))
    assert (given_ <= has + 1e-6).all()
    assert (np.abs(given_ - quotas * total) <= tolerance * total + 1e-6 * (1 + total)).all()


@given(GROUPS, st.integers(0, 3_000))
def test_filling_up_gives_all_there_is_up_to_the_total(groups: list[tuple[int, int]], total: int) -> None:
    available, weights = zip(*groups, strict=True)
    found = fill(np.array(available, float), np.array(weights) / sum(weights), total)
    assert found.sum() == pytest.approx(min(total, sum(available)))
    assert (found <= np.array(available) + 1e-9).all()


def test_the_scarcest_groups_fall_short_until_enough_can_be_kept() -> None:
    available, quotas = np.array([1_000.0, 1_000.0, 50.0, 0.0]), np.array([0.4, 0.2, 0.2, 0.2])
    nothing_needed = plan(available, quotas, 0.0, 2_050, 0)
    assert nothing_needed.short.tolist() == [False] * 4
    some = plan(available, quotas, 0.0, 2_050, 100)
    assert some.short.tolist() == [False, False, False, True]
    assert some.quotas.tolist() == pytest.approx([0.5, 0.25, 0.25, 0])
    most = plan(available, quotas, 0.0, 2_050, 1_000)
    assert most.short.tolist() == [False, False, True, True]
    assert most.quotas.tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert plan(available, quotas, 0.0, 2_050, 2_050).short.tolist() == [True, False, True, True]
