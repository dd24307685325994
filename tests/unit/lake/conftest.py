"""Every test here that opens a ledger runs on both databases."""

from __future__ import annotations

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"ledger", "unmigrated"} & set(metafunc.fixturenames):
        metafunc.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
