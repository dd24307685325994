from __future__ import annotations

import numpy as np
import pytest

from beam_jobs.perplexity.key_index import KeyIndex


def hashes(n: int, seed: int = 0) -> np.ndarray:
    return np.unique(np.random.default_rng(seed).integers(0, 2**64, n, np.uint64))


@pytest.mark.parametrize("n", [1, 2, 3, 100, 65_536])
def test_finds_the_row_of_every_key_and_no_other(n: int) -> None:
    keys = hashes(n)
    index = KeyIndex(keys)
    rows = np.random.default_rng(1).permutation(len(keys))

    np.testing.assert_array_equal(index.find(keys[rows]), rows)
    np.testing.assert_array_equal(index.find(keys + np.uint64(1)), np.full(len(keys), -1))


def test_keys_that_share_their_first_bits_are_told_apart() -> None:
    crowded = np.arange(1_000, dtype=np.uint64) * np.uint64(3)  # all in the first bucket
    index = KeyIndex(crowded)

    np.testing.assert_array_equal(index.find(crowded), np.arange(1_000))
    np.testing.assert_array_equal(index.find(crowded + np.uint64(1)), np.full(1_000, -1))


def test_the_first_and_the_last_hash_there_can_be_are_keys_like_others() -> None:
    index = KeyIndex(np.array([0, 2**64 - 1], np.uint64))

    np.testing.assert_array_equal(index.find(np.array([2**64 - 1, 0, 5], np.uint64)), [1, 0, -1])


def test_no_keys_hold_nothing() -> None:
    np.testing.assert_array_equal(KeyIndex(np.zeros(0, np.uint64)).find(hashes(5)), np.full(5, -1))
