"""Candidate pairs against all pairs compared, and that hot signatures cost no square."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs import neighbours
from beam_jobs.neighbours import MAX_ALIKE, candidate_pairs, tables
from beam_jobs.simhash import Hashes


def found(signatures: Hashes, max_hamming: int) -> set[tuple[int, int]]:
    """Pairs of all tables together, each with the smaller number first."""
    pairs = [candidate_pairs(signatures, mask, max_hamming) for mask in tables(max_hamming)]
    return {(min(pair), max(pair)) for pair in np.concatenate(pairs).tolist()}


def by_brute_force(signatures: Hashes, max_hamming: int) -> set[tuple[int, int]]:
    values = signatures.tolist()
    return {(a, b) for b in range(len(values)) for a in range(b) if (values[a] ^ values[b]).bit_count() <= max_hamming}


def clusters(seed: int, n_clusters: int = 30, n_each: int = 8, max_flips: int = 10) -> Hashes:
    """Random signatures, each with neighbours a few flipped bits away."""
    draw = np.random.default_rng(seed)
    centres = draw.integers(0, 1 << 64, n_clusters, np.uint64)
    flips = [
        np.bitwise_or.reduce(np.uint64(1) << draw.choice(64, draw.integers(0, max_flips + 1), False).astype(np.uint64))
        for _ in range(n_clusters * n_each)
    ]
    return np.repeat(centres, n_each) ^ np.array(flips, np.uint64)


@pytest.mark.parametrize("max_hamming", [0, 1, 3, 6, 8, 12])
@pytest.mark.parametrize("seed", range(3))
def test_exactly_the_pairs_within_the_distance(seed: int, max_hamming: int) -> None:
    signatures = clusters(seed, max_flips=max_hamming)
    expected = by_brute_force(signatures, max_hamming)
    assert found(signatures, max_hamming) == expected
    assert len(expected) >= 20


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=12), st.integers(0, 12))
def test_any_few_signatures(values: list[int], max_hamming: int) -> None:
    signatures = np.array(values, np.uint64)
    assert found(signatures, max_hamming) == by_brute_force(signatures, max_hamming)


@pytest.mark.parametrize("max_hamming", range(13))
def test_the_tables_are_those_of_the_paper(max_hamming: int) -> None:
    masks = tables(max_hamming)
    n_blocks = max_hamming + 2
    assert len(set(masks)) == n_blocks * (n_blocks - 1) // 2
    assert np.bitwise_or.reduce(masks) == np.uint64((1 << 64) - 1)
    bits = [int(mask).bit_count() for mask in masks]
    assert max(bits) - min(bits) <= 2


def test_one_signature_a_hundred_thousand_times_is_linear() -> None:
    signatures = np.full(100_000, 12345, np.uint64)
    pairs = candidate_pairs(signatures, tables(8)[0], 8)
    assert len(pairs) < 2 * len(signatures)
    reached = {int(pair.max()) for pair in pairs}
    assert reached == set(range(1, len(signatures)))  # and yet each is compared with an earlier one
    assert set(pairs[pairs.max(axis=1) >= MAX_ALIKE].min(axis=1)) == {0}


def test_ten_thousand_near_signatures_are_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MAX_CANDIDATES", 8)
    monkeypatch.setattr(neighbours, "MAX_RUN", 64)
    signatures = clusters(0, n_clusters=1, n_each=10_000, max_flips=3)
    for mask in tables(8)[:3]:
        assert len(candidate_pairs(signatures, mask, 8)) <= 10_000 * (8 + 2)


def test_none_and_one() -> None:
    for n in (0, 1):
        assert candidate_pairs(np.zeros(n, np.uint64), tables(3)[0], 3).shape == (0, 2)
