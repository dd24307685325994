"""Two precisions of one version side by side: real training, export, BentoML and answers, of a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from bentos.experiment_orders import environment_of
from bentos.serve import link_stores, replica_home, serve_command, serve_environment
from flows.context import Context
from flows.experiments import start
from flows.precisions import packaged_as
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.ledger.rollout_state import Replica
from lake.recipe import Experiment, Recipe
from lake.records import Bento, Dataset
from lake.settings import Settings
from tests.ports import free_ports
from tests.servers import answers, wait_until
from tests.stages import commit_record
from tests.tiny_model import prose, write_tiny_model
from training.export import export
from training.finetune import finetune

pytestmark = pytest.mark.integration


@pytest.fixture
def context(ledger: Ledger, bucket: Bucket, tmp_path: Path) -> Context:
    """v1 of tiny is the champion: trained, exported in fp32, packaged before there were variants."""
    context = Context.from_environment()
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "base_model": f"file:{write_tiny_model(tmp_path / 'base')}",
            "training": {"steps": 2, "rank": 4, "sequence_length": 64, "validation_tokens": 64},
            "export": {"quantization": "none"},
        }
    )
    bucket.put("recipes/tiny.yaml", json.dumps(recipe.model_dump(mode="json")).encode())
    texts = prose(30)
    dataset = Dataset(
        dataset_id="d1", model="tiny", drop_id="drop", prefix="datasets/tiny/d1/", history_ids=(), n_objects=1,
        n_read=30, n_kept=30, rejected={}, redacted={}, n_documents={"train": 20, "validation": 5, "test": 5},
        n_characters={"train": 1},
    )  # fmt: skip
    for split, part in (("train", texts[:20]), ("validation", texts[20:25]), ("test", texts[25:])):
        bucket.put_table(f"{dataset.prefix}shards/{split}-00000.parquet", pa.table({"text": part}))
    ledger.versions.allocate(model="tiny", training_key="one", reason="drop", dataset_ids=("d1",), parent=None)
    ledger.versions.crown("tiny", "v1")
    for folder in ("train", "export"):
        (tmp_path / folder).mkdir()
    where = {"recipe": recipe, "address": bucket.address, "cache": tmp_path, "datasets": [dataset]}
    checkpoint, _ = finetune(
        model="tiny", version="v1", parent=None, replay=[], workdir=tmp_path / "train", checkpoint_id="c1",
        prefix="models/tiny/v1/adapter/", progress=lambda _: None, **where,
    )  # fmt: skip
    exported = export(
        checkpoint=checkpoint, workdir=tmp_path / "export", export_id="e1", prefix="models/tiny/v1/onnx/", **where
    )
    assert exported.variant == "fp32"
    old = Bento(
        bento_id="b1", tag="tiny:v1", model_tag="tiny:v1", model="tiny", version="v1", export_id="e1",
        labels={"variant": "fp32"}, archive_key="none",
    )  # fmt: skip
    for stage, record in (("prepare", dataset), ("train", checkpoint), ("export", exported), ("package", old)):
        commit_record(ledger, stage, "tiny", f"{stage}-1", record)
    return context


@pytest.fixture(autouse=True)
def _environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Context.from_environment` is this test's installation."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)


def test_both_precisions_of_a_version_are_packaged_and_served(context: Context, bucket: Bucket) -> None:
    version = context.ledger.versions.get("tiny", "v1")
    assert version is not None
    wanted = Experiment.model_validate(
        {
            "name": "weights",
            "model": "tiny",
            "arms": {"b": {"precision": "int8", "system_prompt": "Costs $USD.", "sampling": {"max_tokens": 3}}},
        }
    )
    begun = start(context, wanted)
    assert (begun.champion, begun.challenger) == ("v1", "v1-b1")
    (replica,) = context.ledger.rollouts.wanted_replicas()
    assert replica.tag == "tiny:v1-int8"
    fp32 = packaged_as(context, version, "fp32")
    assert fp32.tag == "tiny:v1-fp32"
    assert fp32.export_id == "e1"  # what the version was exported to
    assert packaged_as(context, version, "fp32") == fp32
    assert {name: _variant(context, name) for name in ("v1-int8", "v1-fp32")} == {"v1-int8": "int8", "v1-fp32": "fp32"}

    with serving(context, replica) as url:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
        told = {"role": "system", "content": "Costs $USD."}
        with_prompt = httpx.post(
            f"{url}/v1/chat/completions", json={**body, "messages": [told, *body["messages"]]}, timeout=60
        )
    assert answer.headers["x-tidemill-model"] == "tiny/v1-b1"
    assert answer.json()["usage"] == with_prompt.json()["usage"]
    assert answer.json()["usage"]["completion_tokens"] <= 3
    assert replica.environment == {**environment_of(wanted.arms.b), "TIDEMILL_VARIANT": "v1-b1"}


def _variant(context: Context, name: str) -> str:
    folder = context.bentoml_home / "models" / "tiny" / name
    return str(json.loads((folder / "tidemill.json").read_text())["variant"])


@contextmanager
def serving(context: Context, replica: Replica) -> Iterator[str]:
    """The replica as the supervisor would start it."""
    (port,) = free_ports(1)
    home = replica_home(context.settings, replica.model, replica.version)
    link_stores(context.bentoml_home, home)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "PYTHONPATH"))}
    environment = {**own, **serve_environment(context.settings, home), **replica.environment}
    log = context.settings.home / "replica.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            serve_command(replica.tag, port), env=environment, cwd=home, stdout=output, stderr=output
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until("it is ready", lambda: answers(f"{url}/readyz") or process.poll() is not None, timeout_s=120)
            assert process.poll() is None, log.read_text()[-3000:]
            yield url
        finally:
            process.terminate()
            process.wait(60)
