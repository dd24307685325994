from __future__ import annotations

import pytest

from flows.rollout_bars import ASCII, UNICODE, interval_bar, share_bar, spelt
from tests.rollout_story import check


def test_the_estimate_lies_within_its_interval_against_the_margin() -> None:
    bar = interval_bar(check(effect=0.002, lower=0.0, upper=0.004, margin=0.01), 31, ASCII)
    assert len(bar) == 31
    assert bar.index(":") == 10 and bar.index("|") == 20
    assert bar.index(":") < bar.index("o") < bar.index("|")
    assert bar.strip(" ").startswith(":") and "<" not in bar and ">" not in bar


def test_what_lies_beyond_the_axis_is_cut_and_marked() -> None:
    bar = interval_bar(check(effect=0.5, lower=0.3, upper=0.7, margin=0.01), 30, ASCII)
    assert bar.endswith(">") and "o" not in bar
    wide = interval_bar(check(effect=0.0, lower=None, upper=None, margin=0.01), 30, ASCII)
    assert wide.startswith("<") and wide.endswith(">") and "o" in wide


def test_factors_are_on_a_logarithmic_axis() -> None:
    bar = interval_bar(check(metric="latency_p95", effect=0.5, lower=0.5, upper=2.0, margin=2.0), 31, ASCII)
    assert bar.index("o") == 0  # half is as far to the left as twice is to the right
    assert bar.rstrip(" ").index("|") == 20


def test_nothing_to_tell_is_an_empty_axis() -> None:
    bar = interval_bar(check(effect=None, lower=None, upper=None), 30, UNICODE)
    assert set(bar) == {" ", "┊", "┃"}


def test_a_margin_of_nothing_is_no_division_by_zero() -> None:
    bar = interval_bar(check(effect=0.01, lower=-0.01, upper=0.03, margin=0.0), 31, ASCII)
    assert "|" in bar and "o" in bar
    assert "|" in interval_bar(check(metric="cpu_s", effect=1.01, lower=0.9, upper=1.1, margin=1.0), 31, ASCII)


@pytest.mark.parametrize(("share", "full"), [(0.0, 0), (0.5, 5), (1.0, 10), (1.5, 10)])
def test_a_share(share: float, full: int) -> None:
    assert share_bar(share, 10, ASCII) == "#" * full + "." * (10 - full)


def test_text_is_spelt_in_what_the_terminal_knows() -> None:
    assert spelt("×2 → “a”", ASCII) == "x2 -> ?a?"
    assert spelt("×2 → ab", UNICODE) == "×2 → ab"
