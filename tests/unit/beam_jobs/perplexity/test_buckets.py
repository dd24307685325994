from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from beam_jobs.perplexity.buckets import Thresholds, bucket_of, terciles

POPULATION = np.exp(np.random.default_rng(0).normal(5, 1, 30_000))


def test_terciles_cut_what_they_come_from_into_three_equal_buckets() -> None:
    counts = Counter(bucket_of(POPULATION, terciles(POPULATION)))

    assert counts == {"head": 10_000, "middle": 10_000, "tail": 10_000}


def test_a_threshold_itself_belongs_below_it_and_what_is_not_scored_nowhere() -> None:
    found = bucket_of(np.array([1.0, 10.0, 10.5, 20.0, 21.0, np.nan]), Thresholds(10, 20))

    assert found == ["head", "head", "middle", "middle", "tail", None]


def without_tail(judged_share: float) -> np.ndarray:
    """What is left of the population once the tail of those that were judged is gone."""
    is_judged = np.random.default_rng(1).random(len(POPULATION)) < judged_share
    is_tail = np.array([bucket == "tail" for bucket in bucket_of(POPULATION, terciles(POPULATION))])
    return POPULATION[~(is_judged & is_tail)]


@pytest.mark.parametrize("judged_share", [1.0, 0.5, 0.1])
def test_thresholds_stay_where_they_are_though_a_drop_has_lost_its_tail(judged_share: float) -> None:
    left = without_tail(judged_share)

    again = terciles(left, rejected_share=1 - len(left) / len(POPULATION))

    assert again == pytest.approx(terciles(POPULATION), rel=0.02)


def test_taken_for_everything_what_is_left_would_be_cut_further_down_every_time() -> None:
    assert terciles(without_tail(1.0)).tail < 0.75 * terciles(POPULATION).tail


def test_a_single_document_is_its_own_terciles() -> None:
    assert terciles(np.array([7.0])) == Thresholds(7, 7)
