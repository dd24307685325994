"""Packaging without BentoML: what is asked of the build, and what is said when it fails. The build itself is in
tests/integration/test_serving.py."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from pydantic import ValidationError

from bentos.package import _pack, package
from bentos.serve import link_stores, serve_command, serve_environment
from bentos.serving_config import FILE_NAME, ServingConfig, load_serving_settings, read_config, read_facts
from lake.bucket import Bucket
from lake.errors import TidemillError
from lake.recipe import Recipe
from lake.settings import Settings
from tests.tiny_export import ONNX_PREFIX, exported_model

RECIPE = Recipe(name="tiny")


def test_a_missing_export_is_said(bucket: Bucket, tiny_export: Path, tmp_path: Path) -> None:
    with pytest.raises(TidemillError, match=r"no model\.onnx"):
        package(
            exported_model(tiny_export),
            RECIPE,
            {},
            bucket.address,
            tmp_path / "home",
            tmp_path,
            "id",
            "models/m/v1/bento/",
        )


def test_the_files_of_another_version_are_not_packaged(bucket: Bucket, tiny_export: Path, tmp_path: Path) -> None:
    bucket.upload_folder(tiny_export, ONNX_PREFIX)
    other = exported_model(tiny_export).model_copy(update={"version": "v2"})

    with pytest.raises(TidemillError, match="expected tiny v2, got tiny v1"):
        package(other, RECIPE, {}, bucket.address, tmp_path / "home", tmp_path, "id", "models/m/v1/bento/")


def test_a_failing_build_tells_its_last_lines(bucket: Bucket, tiny_export: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_export, broken)
    (broken / "model.onnx").write_bytes(b"not a graph")
    bucket.upload_folder(broken, ONNX_PREFIX)

    with pytest.raises(TidemillError) as raised:
        package(
            exported_model(broken),
            RECIPE,
            {},
            bucket.address,
            tmp_path / "home",
            tmp_path / "work",
            "id",
            "models/m/v1/bento/",
        )

    assert "tiny:v1" in raised.value.where
    assert "DecodeError" in raised.value.got
    assert not (tmp_path / "home" / "models" / "tiny" / "v1").exists()


def test_an_archive_holds_neither_bytecode_nor_weights(tmp_path: Path) -> None:
    for name in (
        "bento.yaml",
        "src/bentos/service.py",
        "src/bentos/__pycache__/service.pyc",
        "models/tiny/v1/model.onnx",
    ):
        path = tmp_path / "bento" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)

    _pack(tmp_path / "bento", tmp_path / "archive.tar.gz")

    with tarfile.open(tmp_path / "archive.tar.gz") as tar:
        assert {member.name for member in tar if member.isfile()} == {"bento.yaml", "src/bentos/service.py"}


def test_replicas_share_stores_and_nothing_else(tmp_path: Path) -> None:
    shared, homes = tmp_path / "bentoml", [tmp_path / "replicas" / name for name in ("a", "b")]
    for home in homes:
        link_stores(shared, home)
        link_stores(shared, home)  # safe to repeat
        (home / "prometheus_multiproc_dir").mkdir()
    (shared / "models" / "tiny").mkdir()

    assert all((home / "models" / "tiny").is_dir() for home in homes)
    assert sorted(path.name for path in homes[0].iterdir()) == ["bentos", "models", "prometheus_multiproc_dir"]


def test_a_link_to_an_earlier_store_is_replaced(tmp_path: Path) -> None:
    link_stores(tmp_path / "old", tmp_path / "home")
    link_stores(tmp_path / "new", tmp_path / "home")

    assert (tmp_path / "home" / "models").readlink() == tmp_path / "new" / "models"


def test_a_replica_is_told_everything_it_needs(settings: Settings, tmp_path: Path) -> None:
    environment = serve_environment(settings, tmp_path)

    assert environment["BENTOML_HOME"] == str(tmp_path)
    assert environment["BENTOML_DO_NOT_TRACK"] == "True"
    assert settings.environment().items() <= environment.items()
    command = serve_command("tiny:v1", 3107)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "3107"


def test_serving_settings_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"THREADS": "3", "LOG_FLUSH_S": "0.5", "INJECT_ERROR_RATE": "0.25", "SPIN": "1"}.items():
        monkeypatch.setenv(f"TIDEMILL_{name}", value)

    serving = load_serving_settings()

    assert (serving.n_threads, serving.log_flush_s, serving.inject_error_rate, serving.spin) == (3, 0.5, 0.25, True)


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_INJECT_ERROR_RATE", "1.5")

    with pytest.raises(TidemillError, match=r"TIDEMILL_INJECT_ERROR_RATE: expected .*less than or equal to 1"):
        load_serving_settings()


def test_all_processors_are_used_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDEMILL_THREADS", raising=False)

    assert load_serving_settings().n_threads == len(os.sched_getaffinity(0))


def test_what_a_bento_knows_of_its_model(tmp_path: Path) -> None:
    config = ServingConfig(model="tiny", version="v1", log_share=0.5, created=7)
    (tmp_path / FILE_NAME).write_text(config.model_dump_json())

    assert read_config(tmp_path) == config
    assert config.tag == "tiny:v1"
    with pytest.raises(TidemillError, match="package the model again"):
        read_config(tmp_path / "elsewhere")


def test_facts_may_tell_more_than_is_asked_but_not_less(tiny_export: Path, tmp_path: Path) -> None:
    told = json.loads((tiny_export / "tidemill.json").read_text())
    (tmp_path / "tidemill.json").write_text(json.dumps({**told, "license": "Apache-2.0"}))
    assert read_facts(tmp_path).context_length == told["context_length"]

    del told["eos_token_ids"]
    (tmp_path / "tidemill.json").write_text(json.dumps(told))
    with pytest.raises(ValidationError, match="eos_token_ids"):
        read_facts(tmp_path)
