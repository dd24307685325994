from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.sampling import Sampler, Sampling, invert, nucleus, probabilities


def logits(*shares: float) -> np.ndarray:
    return np.log(np.array(shares, dtype=np.float32))


def drawn(sampling: Sampling, of: np.ndarray, n: int) -> list[int]:
    sampler = Sampler(sampling)
    return [sampler.choose(of.copy()) for _ in range(n)]


def test_temperature_0_takes_the_most_probable() -> None:
    assert drawn(Sampling(temperature=0), logits(0.2, 0.5, 0.3), 3) == [1, 1, 1]


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, [0.1, 0.6, 0.3]), (2.0, [0.193, 0.473, 0.334])])
def test_tokens_come_in_proportion_to_their_probability(temperature: float, expected: list[float]) -> None:
    tokens = drawn(Sampling(temperature=temperature, seed=7), logits(0.1, 0.6, 0.3), 20_000)

    shares = np.bincount(tokens, minlength=3) / len(tokens)
    # 4 standard errors of a share of 20,000 draws
    np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / np.sqrt(20_000))


def test_the_same_seed_draws_the_same_tokens_and_another_does_not() -> None:
    flat = np.zeros(1000, dtype=np.float32)

    first, again, other = (drawn(Sampling(seed=seed), flat, 20) for seed in (5, 5, 6))

    assert first == again
    assert first != other


def test_top_p_leaves_out_the_tail() -> None:
    tokens = drawn(Sampling(top_p=0.7, seed=1), logits(0.05, 0.5, 0.15, 0.3), 2_000)

    assert set(tokens) == {1, 3}
    assert abs(tokens.count(1) / 2_000 - 0.5 / 0.8) < 0.05


@given(st.integers(2, 2_000), st.floats(0.01, 0.999), st.integers(0, 1_000))
@settings(max_examples=60, deadline=None)
def test_the_nucleus_is_the_smallest_set_that_holds_the_share(n: int, top_p: float, seed: int) -> None:
    """Also where the fast path over a few candidates applies, and where it does not."""
    shares = np.random.default_rng(seed).dirichlet(np.full(n, 0.05 if seed % 2 else 5.0)).astype(np.float32)

    kept = nucleus(shares, top_p)

    assert shares[kept].sum() >= top_p - 1e-6
    assert shares[kept[:-1]].sum(dtype=np.float64) < top_p
    assert shares[kept].min() >= np.delete(shares, kept).max(initial=0)


def test_a_frequency_penalty_grows_with_each_repetition_and_a_presence_penalty_does_not() -> None:
    two = np.array([1.0, 0.0], dtype=np.float32)

    assert drawn(Sampling(temperature=0, frequency_penalty=0.4), two, 5) == [0, 0, 0, 1, 0]
    assert drawn(Sampling(temperature=0, presence_penalty=0.4), two, 5) == [0, 0, 0, 0, 0]
    assert drawn(Sampling(temperature=0, presence_penalty=1.5), two, 3) == [0, 1, 0]


def test_a_tiny_temperature_is_the_most_probable_and_no_overflow() -> None:
    shares = probabilities(np.array([80.0, -80.0, 79.0], dtype=np.float32), 1e-300)

    assert shares.tolist() == [1.0, 0.0, 0.0]


@given(st.integers(1, 1_500), st.floats(0, 1, exclude_max=True), st.integers(0, 1_000))
@settings(max_examples=100, deadline=None)
def test_drawing_by_blocks_is_inverting_the_whole_distribution(n: int, draw: float, seed: int) -> None:
    shares = np.random.default_rng(seed).dirichlet(np.full(n, 0.5)).astype(np.float32)
    shares[shares < np.median(shares) / 10] = 0

    token = invert(shares, draw)

    ends = np.cumsum(shares, dtype=np.float64) / shares.sum(dtype=np.float64)
    assert shares[token] > 0
    assert ends[token] >= draw - 1e-6
    assert token == 0 or ends[token - 1] <= draw + 1e-6


@pytest.mark.parametrize("n", [1, 255, 256, 257, 512])
def test_the_largest_draw_takes_the_last_token_that_has_a_share(n: int) -> None:
    shares = np.zeros(n + 300, dtype=np.float32)
    shares[:n] = 1 / n

    assert invert(shares, np.nextafter(1.0, 0.0)) == n - 1
    assert invert(shares, 0.0) == 0
