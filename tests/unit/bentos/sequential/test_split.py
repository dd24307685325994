from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.special import betaln

from bentos.sequential.split import CONCENTRATION, SHIFT, SplitTest, log_e

ALPHA = 1e-3


def peaks(n_runs: int, n_requests: int, planned: float, actual: float, seed: int) -> np.ndarray:
    """The highest log e-value of each run, looked at after every request."""
    rng = np.random.default_rng(seed)
    n, found = np.arange(1, n_requests + 1), []
    shift = SHIFT * math.sqrt(planned * (1 - planned))
    for _ in range(n_runs):
        k = np.cumsum(rng.random(n_requests) < actual)
        halves = []
        for middle in (planned - shift, planned + shift):
            a, b = CONCENTRATION * (1 - middle), CONCENTRATION * middle
            halves.append(betaln(a + n - k, b + k) - betaln(a, b))
        mixed = np.logaddexp(*halves) - math.log(2) - (n - k) * math.log1p(-planned) - k * math.log(planned)
        assert mixed[-1] == pytest.approx(log_e(n_requests - int(k[-1]), int(k[-1]), planned), abs=1e-6)
        found.append(mixed.max())
    return np.array(found)


def test_48_to_52_is_noticed_within_20_000_requests() -> None:
    assert (peaks(200, 20_000, 0.5, 0.48, seed=0) > -math.log(ALPHA)).mean() >= 0.92  # 0.955 of many thousands


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_a_split_as_planned_raises_no_alarm(share: float) -> None:
    assert (peaks(500, 5_000, share, share, seed=1) > -math.log(0.02)).mean() <= 0.02


def test_its_mean_is_1_under_the_plan() -> None:
    n, share = 40, 0.3
    k = np.arange(n + 1)
    chance = [math.comb(n, int(each)) * share**each * (1 - share) ** (n - each) for each in k]
    mean = sum(p * math.exp(log_e(n - int(each), int(each), share)) for p, each in zip(chance, k, strict=True))
    assert mean == pytest.approx(1)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.95, 0.999])
def test_all_traffic_to_one_side_is_noticed(share: float) -> None:
    assert SplitTest(share=share).updated(0, 20_000).p() < ALPHA
    assert SplitTest(share=share).updated(20_000, 0).p() < ALPHA


def test_its_p_value_only_falls_and_starts_at_1() -> None:
    test = SplitTest(share=0.5)
    assert test.p() == 1
    broken = test.updated(500, 900)
    assert broken.p() < ALPHA
    mended = broken.updated(900, 500)
    assert mended.p() == broken.p()
    assert (mended.n_champion, mended.n_challenger) == (1_400, 1_400)


def test_it_survives_json() -> None:
    test = SplitTest(share=0.25).updated(310, 95)
    assert SplitTest.model_validate(json.loads(json.dumps(test.model_dump(mode="json"), allow_nan=False))) == test


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 or more"):
        SplitTest(share=0.5).updated(-1, 3)
