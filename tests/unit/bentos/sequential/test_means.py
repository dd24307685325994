from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bentos.sequential.means import MIN_VALUES, MeanTest, Moments, PairedTest

ALPHA = 0.01
DIFFERENCES = [0.5, -0.25, 1, 0, 0.75, -1, 0.25, 0.5] * 25


@pytest.mark.parametrize(
    ("n", "lower", "upper"),
    [(10, -1.0, 1.0), (50, -0.09620349280057683, 0.526203492800577), (200, 0.09045874542386034, 0.34725712087968086)],
)
def test_paired_bounds_are_those_of_confseq(n: int, lower: float, upper: float) -> None:
    """Reference: confseq 0.0.11, `predmix.predmix_lower_cs(x, v=(x - mean before x)**2, alpha=0.05)` on x and 1 - x.

    With `lambda_predmix_eb(x, truncation=0.5, alpha=0.002)` and psi(l) = -log(1 - l) - l, scaled back to [-1, 1].
    """
    interval = PairedTest(margin=0.1).updated(DIFFERENCES[:n]).interval(0.05)
    assert interval == pytest.approx((lower, upper), abs=1e-12)


def test_paired_bounds_are_close_to_those_of_confseqs_own_start() -> None:
    """`predmix.predmix_empbern_lower_cs(x, alpha=0.002)` estimates the first means otherwise: 0.0194 after 200."""
    interval = PairedTest(margin=0.1).updated(DIFFERENCES).interval(0.002)
    assert interval is not None
    assert interval[0] == pytest.approx(0.01944550646491483, abs=0.005)


def test_paired_differences_may_come_in_any_portions() -> None:
    one = PairedTest(margin=0.1).updated(DIFFERENCES)
    many = PairedTest(margin=0.1)
    for at in range(0, len(DIFFERENCES), 7):
        many = many.updated(DIFFERENCES[at : at + 7])
    assert many == one
    assert one.effect == pytest.approx(np.mean(DIFFERENCES))


def test_paired_agrees_with_its_interval_and_tells_worse_from_fine() -> None:
    rng = np.random.default_rng(0)
    worse, fine = PairedTest(margin=0.1), PairedTest(margin=0.1)
    for _ in range(300):
        worse, fine = worse.updated([float(rng.random() < 0.4)]), fine.updated([float(rng.random() < 0.02)])
        for test in (worse, fine):
            interval = test.interval(ALPHA)
            assert interval is not None
            if interval[0] > -1 and interval[1] < 1:
                assert (interval[0] > test.margin) == (test.p_worse() < ALPHA)
                assert (interval[1] < test.margin) == (test.p_fine() < ALPHA)
    assert worse.p_worse() < ALPHA < worse.p_fine()
    assert fine.p_fine() < ALPHA < fine.p_worse()


def test_paired_false_alarms_are_rarer_than_alpha_however_often_one_looks() -> None:
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(100):
        test = PairedTest(margin=0.1)
        differences = np.where(rng.random(150) < 0.1, 1.0, 0.0).tolist()
        ever = False
        for difference in differences:
            test = test.updated([difference])
            ever = ever or test.p_worse() <= 0.05
        alarms += ever
    assert alarms <= 5


@pytest.mark.parametrize("difference", [1.01, -1.5, math.nan, math.inf])
def test_differences_out_of_range_are_refused(difference: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        PairedTest(margin=0.1).updated([0.0, difference])


def test_paired_knows_nothing_before_any_data() -> None:
    test = PairedTest(margin=0.1)
    assert (test.effect, test.champion, test.challenger, test.interval(0.05)) == (None, None, None, None)
    assert (test.p_worse(), test.p_fine(), test.n_champion) == (1, 1, 0)


def test_moments_are_those_of_all_values() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(1_000, 1, 500)
    moments = Moments()
    for at in range(0, 500, 33):
        moments = moments.with_values(values[at : at + 33].tolist())
    assert (moments.n, moments.mean) == (500, pytest.approx(values.mean()))
    assert moments.squares / 499 == pytest.approx(values.var(ddof=1))


def mean_test(ratio: bool, higher_is_worse: bool, margin: float, worse: float, n: int = 300, seed: int = 3) -> MeanTest:
    """Of a champion at 1 and a challenger that is worse by `worse`: points, or a factor."""
    rng, test = np.random.default_rng(seed), MeanTest(margin=margin, ratio=ratio, higher_is_worse=higher_is_worse)
    challenger = (worse if higher_is_worse else 1 / worse) if ratio else (1 + worse if higher_is_worse else 1 - worse)
    for _ in range(n):
        test = test.updated([rng.normal(1, 0.2)], [rng.normal(challenger, 0.2)])
    return test


@pytest.mark.parametrize("higher_is_worse", [True, False])
@pytest.mark.parametrize(("ratio", "margin", "bad", "good"), [(False, 0.1, 0.25, 0.0), (True, 1.1, 1.3, 1.0)])
def test_means_tell_worse_from_fine(ratio: bool, higher_is_worse: bool, margin: float, bad: float, good: float) -> None:
    worse, fine = (mean_test(ratio, higher_is_worse, margin, effect) for effect in (bad, good))
    assert worse.effect == pytest.approx(bad, abs=0.05)
    assert worse.p_worse() < ALPHA < worse.p_fine()
    assert fine.p_fine() < ALPHA < fine.p_worse()
    for test, effect in ((worse, bad), (fine, good)):
        interval = test.interval(ALPHA)
        assert interval is not None
        assert interval[0] <= effect <= interval[1]
        assert (interval[0] >= margin) == (test.p_worse() <= ALPHA)
        assert (interval[1] <= margin) == (test.p_fine() <= ALPHA)


def test_points_are_bounded_by_the_formula_of_the_paper() -> None:
    """The one-sided Gaussian mixture, written out for two arms of equal size and variance."""
    values = [0.0, 1.0] * 50
    test = MeanTest(margin=0.0, ratio=False, higher_is_worse=True).updated(values, values)
    variance, n, alpha = 100 * 0.25 / 99, 100, 0.05
    rho2 = (-2 * math.log(0.002) + math.log(1 - 2 * math.log(0.002))) / 100
    reach = math.sqrt(2 * variance) * math.sqrt(
        2 * (n * rho2 + 1) / (n**2 * rho2) * math.log(1 + math.sqrt(n * rho2 + 1) / (2 * alpha))
    )
    assert test.interval(alpha) == pytest.approx((-reach, reach))


def test_a_p_value_is_the_alpha_at_which_the_interval_meets_the_margin() -> None:
    test = mean_test(False, True, 0.1, 0.2, n=40)
    interval = test.interval(test.p_worse())
    assert interval is not None
    assert interval[0] == pytest.approx(0.1)


def test_means_say_nothing_before_enough_values() -> None:
    test = MeanTest(margin=0.0, ratio=False, higher_is_worse=True)
    rng = np.random.default_rng(4)
    for _ in range(MIN_VALUES - 1):
        test = test.updated([rng.normal(0, 1)], [rng.normal(99, 1)])
    assert (test.p_worse(), test.interval(0.05)) == (1, None)
    assert test.updated([0.0], [99.0]).p_worse() < ALPHA


def test_equal_values_are_no_proof_that_all_will_be_equal() -> None:
    test = MeanTest(margin=0.0, ratio=False, higher_is_worse=True).updated([0.5] * 20, [0.5] * 20)
    assert (test.p_worse(), test.p_fine(), test.interval(0.05)) == (1, 1, None)
    one_apart = test.updated([0.5], [0.6])
    assert one_apart.p_worse() > ALPHA
    all_bad = MeanTest(margin=0.05, ratio=False, higher_is_worse=False).updated([1.0] * 12, [0.0] * 12)
    assert all_bad.p_worse() < ALPHA


def test_means_of_zero_and_below_have_no_ratio() -> None:
    rng = np.random.default_rng(5)
    test = MeanTest(margin=1.1, ratio=True, higher_is_worse=True).updated(
        rng.normal(-5, 1, 30).tolist(), rng.normal(5, 1, 30).tolist()
    )
    assert (test.effect, test.p_worse(), test.p_fine(), test.interval(0.05)) == (None, 1, 1, None)


@pytest.mark.parametrize("kind", ["normal", "binary", "exponential"])
def test_false_alarms_of_means_are_rarer_than_alpha(kind: str) -> None:
    """Asymptotic: looked at after every pair of values, from the tenth on, at the very edge of what is allowed."""
    rng, alarms, runs, alpha = np.random.default_rng(6), 0, 120, 0.05
    draw = {
        "normal": lambda: rng.normal(0, 1, 100),
        "binary": lambda: (rng.random(100) < 0.8).astype(float),
        "exponential": lambda: rng.exponential(1, 100),
    }[kind]
    for _ in range(runs):
        test = MeanTest(margin=0.0, ratio=False, higher_is_worse=True)
        for champion, challenger in zip(draw(), draw(), strict=True):
            test = test.updated([champion], [challenger])
            if test.p_worse() <= alpha:
                alarms += 1
                break
    assert alarms <= runs * alpha


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        MeanTest(margin=0.0, ratio=False, higher_is_worse=True).updated([value], [])


def test_both_survive_json() -> None:
    paired, means = PairedTest(margin=0.1).updated(DIFFERENCES), mean_test(True, True, 1.1, 1.3, n=20)
    assert PairedTest.model_validate(json.loads(json.dumps(paired.model_dump(mode="json"), allow_nan=False))) == paired
    assert MeanTest.model_validate(json.loads(json.dumps(means.model_dump(mode="json"), allow_nan=False))) == means
