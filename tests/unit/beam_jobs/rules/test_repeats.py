"""Repetition as every recipe measures it."""

from __future__ import annotations

import pytest

from beam_jobs.rules.repeats import repeated_lines, repeated_runs
from beam_jobs.simhash import fingerprint


def test_repeated_lines_count_from_the_second_time_on() -> None:
    assert repeated_lines("aaaa\nbbbb\naaaa\naaaa") == pytest.approx(0.5)
    assert repeated_lines("aaaa\n\n\n  aaaa  ") == pytest.approx(0.5)
    assert repeated_lines("a\nb\nc") == 0
    assert repeated_lines("\n\n") == 0


def test_repeated_runs_of_five_words_count_from_the_second_time_on() -> None:
    # 10 words: 6 runs, of which the last is the first one again.
    assert repeated_runs(fingerprint("a b c d e a b c d e")) == pytest.approx(1 / 6)
    assert repeated_runs(fingerprint("a b c d e f g")) == 0
    assert repeated_runs(fingerprint("")) == 0
