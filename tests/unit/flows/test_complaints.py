"""A standing problem is told once, and once more when it is over."""

from __future__ import annotations

import logging

import pytest

from flows.complaints import Complaints


def fails(message: str) -> None:
    raise ValueError(message)


def test_a_problem_is_told_when_it_begins_changes_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    complaints = Complaints(logging.getLogger("test"))
    for message in ("away since 10:01", "away since 10:02", "refused"):
        complaints.attempt("store", lambda message=message: fails(message))
    complaints.attempt("another", lambda: None)
    for _ in range(2):
        complaints.attempt("store", lambda: None)
    assert caplog.messages == ["store: away since 10:01", "store: refused", "store: well again"]
