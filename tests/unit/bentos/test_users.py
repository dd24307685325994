"""Users in the prediction log: one hash for all replicas of an installation, another for every other installation."""

from __future__ import annotations

import pytest

from bentos.users import hashed_user, user_key
from lake.settings import Settings


def test_all_replicas_of_an_installation_have_one_key(settings: Settings) -> None:
    assert user_key(settings) == user_key(settings.model_copy())
    assert len(user_key(settings)) == 32


@pytest.mark.parametrize("changed", [{"api_key": "other"}, {"s3_secret_access_key": "other"}])
def test_neither_secret_alone_tells_the_key(settings: Settings, changed: dict[str, str]) -> None:
    settings = settings.model_copy(update={"api_key": "known"})
    assert user_key(settings.model_copy(update=changed)) != user_key(settings)


def test_a_store_that_gives_rights_without_a_secret_will_do(settings: Settings) -> None:
    assert len(user_key(settings.model_copy(update={"s3_secret_access_key": None}))) == 32


def test_a_hash_depends_on_key_and_user() -> None:
    hashes = {hashed_user(key, user) for key in (b"1", b"2") for user in ("ann", "Ann", "ünal \ud83d")}
    assert len(hashes) == 6
    assert hashed_user(b"1", "") == ""
