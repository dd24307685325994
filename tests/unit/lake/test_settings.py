"""Settings: variables, defaults, and secrets that are made once and readable by their owner alone."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from lake.errors import TidemillError
from lake.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TIDEMILL_{name.upper()}", raising=False)
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))


def test_variables_are_read_and_the_home_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEMILL_HOME", "data")
    monkeypatch.setenv("TIDEMILL_S3_PORT", "9555")
    settings = load_settings()
    assert settings.home == tmp_path / "data"
    assert settings.s3_url == "http://127.0.0.1:9555"
    assert settings.ledger_url == f"sqlite:///{tmp_path}/data/ledger.db"


@pytest.mark.parametrize(
    ("name", "value"), [("TIDEMILL_S3_PORT", "many"), ("TIDEMILL_GATEWAY_PORT", "70000"), ("TIDEMILL_SETTLE_S", "-1")]
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(TidemillError) as caught:
        load_settings()
    assert name in caught.value.where
    assert value in caught.value.got
    assert name in caught.value.remedy


def test_a_home_too_long_for_unix_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TidemillError, match="TIDEMILL_HOME"):
        load_settings(home=tmp_path / ("x" * 100))


def test_secrets_are_made_once_and_only_their_owner_reads_them() -> None:
    settings = load_settings()
    key, secret = settings.gateway_api_key, settings.secret_access_key
    path = settings.home / "secrets.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(settings.home.iterdir()) == [path]
    again = load_settings()
    assert (again.gateway_api_key, again.secret_access_key) == (key, secret)
    assert len(secret or "") >= 40


def test_processes_that_start_at_once_agree_on_the_secrets() -> None:
    barrier, keys = threading.Barrier(8), []

    def read() -> None:
        settings = load_settings()
        barrier.wait()
        keys.append(settings.gateway_api_key)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_secrets_of_an_earlier_version_go_on_and_get_the_webhooks_once() -> None:
    settings = load_settings()
    settings.home.mkdir()
    path = settings.home / "secrets.json"
    earlier = {"s3_access_key_id": "tidemill", "s3_secret_access_key": "s", "api_key": "tm-x"}
    path.write_text(json.dumps(earlier))
    path.chmod(0o600)
    assert settings.gateway_api_key == "tm-x"
    assert json.loads(path.read_text()) == earlier  # nothing is written before it is needed
    made, barrier = [], threading.Barrier(8)

    def ask() -> None:
        asked = load_settings()
        barrier.wait()
        made.append(asked.event_secret)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1
    assert json.loads(path.read_text()) == {**earlier, "webhook_secret": made[0]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(settings.home.iterdir()) == [path]


def test_a_new_installation_has_a_secret_for_events() -> None:
    settings = load_settings()
    assert settings.gateway_api_key
    kept = json.loads((settings.home / "secrets.json").read_text())
    assert settings.event_secret == kept["webhook_secret"]
    assert len(settings.event_secret) >= 40


@pytest.mark.parametrize("content", ["", "{", "[]", '{"api_key": "x"}'])
def test_a_damaged_secrets_file_is_explained(content: str) -> None:
    settings = load_settings()
    settings.home.mkdir()
    (settings.home / "secrets.json").write_text(content)
    with pytest.raises(TidemillError, match=r"secrets\.json: expected JSON with .*; restore the file, or remove it"):
        _ = settings.gateway_api_key


def test_a_home_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TidemillError, match="set TIDEMILL_HOME"):
        _ = load_settings(home=tmp_path / "file" / "home").gateway_api_key


def test_given_keys_come_before_made_ones() -> None:
    settings = load_settings(s3_access_key_id="me", s3_secret_access_key="mine", api_key="tm-mine")
    assert (settings.access_key_id, settings.secret_access_key) == ("me", "mine")
    assert settings.gateway_api_key == "tm-mine"
    assert load_settings(webhook_secret="mine").event_secret == "mine"
    assert not settings.home.exists()


def test_a_foreign_store_without_keys_leaves_them_to_boto3() -> None:
    settings = load_settings(s3_endpoint_url="https://s3.eu-central-1.amazonaws.com")
    assert not settings.embedded_s3
    assert settings.access_key_id is None
    assert settings.secret_access_key is None


def test_no_secret_is_shown() -> None:
    settings = load_settings(
        s3_secret_access_key="hidden-one",
        api_key="hidden-two",
        database_url="postgresql://u:hidden-three@db/x",
        webhook_secret="hidden-four",
    )
    assert "hidden" not in repr(settings)


def test_a_child_process_gets_the_very_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(bucket="other", api_key="tm-x", settle_s=0.5)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings
    assert json.loads(settings.model_dump_json())["bucket"] == "other"
