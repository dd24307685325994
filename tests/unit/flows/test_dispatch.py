"""What can be told without a Prefect server; tests/integration/test_training_run.py has the rest."""

from __future__ import annotations

import httpx
import pytest

from flows import dispatch
from flows.context import Context
from flows.dispatch import _patiently, read_progress
from lake.settings import Settings


def test_an_answer_is_waited_for_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "POLL_S", 0.01)
    n_asked = 0

    def ask() -> str:
        nonlocal n_asked
        n_asked += 1
        if n_asked < 4:
            raise httpx.ConnectError("connection refused")
        return "here"

    assert _patiently(ask) == "here"
    assert n_asked == 4


def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "POLL_S", 0.01)
    monkeypatch.setattr(dispatch, "SERVER_AWAY_S", 0.05)

    def ask() -> str:
        raise httpx.ReadTimeout("no answer")

    with pytest.raises(httpx.ReadTimeout):
        _patiently(ask)


def test_a_refusal_is_an_answer() -> None:
    def ask() -> str:
        request = httpx.Request("GET", "http://127.0.0.1/")
        raise httpx.HTTPStatusError("404", request=request, response=httpx.Response(404, request=request))

    with pytest.raises(httpx.HTTPStatusError):
        _patiently(ask)


def test_progress_is_none_before_it_is_told(settings: Settings) -> None:
    context = Context(settings)
    assert read_progress(context, "docs", "v1") is None
    path = context.progress_file("docs", "v1")
    path.parent.mkdir(parents=True)
    path.write_text('{"step": 3')  # not as this code writes it, by a rename
    assert read_progress(context, "docs", "v1") is None
    path.write_text('{"step": 3, "n_steps": 10}')
    assert read_progress(context, "docs", "v1") == {"step": 3, "n_steps": 10}
