"""Errors say where, what was expected, what was found and what to do, in this process and in another one."""

from __future__ import annotations

import pickle

import pytest

from lake.errors import CheckFailed, GateRejected, RecipeError, SourceChanged, StorageError, TidemillError


@pytest.mark.parametrize("kind", [TidemillError, RecipeError, StorageError, SourceChanged, CheckFailed, GateRejected])
def test_an_error_survives_the_way_between_processes(kind: type[TidemillError]) -> None:
    error = kind("s3://b/k", expected="a table", got="nothing", remedy="drop it again")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "s3://b/k: expected a table, got nothing; drop it again"
    assert vars(again) == vars(error)
