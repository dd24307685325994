"""Prefect's side of training: the flow with its tasks and artifacts, and whoever starts it and waits for it.

One real Prefect server for all. Its workers are played by the tests where they have to die at a certain moment.
"""

from __future__ import annotations

import contextvars
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import pyarrow as pa
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.states import Cancelled, Completed, Failed, Running, State

from flows import pipeline
from flows.context import Context
from flows.dispatch import run_training
from flows.processes import environment, services
from lake.bucket import Bucket, BucketAddress
from lake.errors import CheckFailed, GateRejected, TidemillError
from lake.ledger import Ledger
from lake.ledger.versions import Version
from lake.records import Dataset, ExportedModel
from lake.settings import Settings, load_settings
from tests.ports import free_ports
from tests.predictions import prediction, questions, write_log
from tests.s3 import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from tests.servers import answers, process, wait_until
from tests.stages import commit_record
from tests.tiny_model import prose, write_tiny_model

pytestmark = pytest.mark.integration


class PrefectServer:
    """The server of an installation, as `tidemill up` starts it; can be killed and started again."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._running = ExitStack()

    def start(self) -> None:
        told = next(service for service in services(self.settings) if service.name == "prefect")
        log = self.settings.home / "logs" / "prefect.log"
        self._running.enter_context(process(told.command, log, environment(self.settings)))
        wait_until("Prefect answers", lambda: answers(f"{self.settings.prefect_api_url}/health"), timeout_s=120)

    def stop(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def installation(nanio_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = load_settings(
        home=tmp_path_factory.mktemp("home"),
        bucket="training-runs",
        s3_endpoint_url=nanio_url,
        s3_access_key_id=ACCESS_KEY_ID,
        s3_secret_access_key=SECRET_ACCESS_KEY,
        prefect_port=free_ports(1)[0],
    )
    Bucket(BucketAddress.of(settings)).ensure(create=True)
    Ledger(settings).migrate()
    return settings


@pytest.fixture(scope="module")
def server(installation: Settings) -> Iterator[PrefectServer]:
    server = PrefectServer(installation)
    prefect_settings = {
        PREFECT_API_URL: installation.prefect_api_url,
        PREFECT_HOME: installation.home / "prefect",
    }
    try:
        server.start()
        with temporary_settings(prefect_settings):
            yield server
    finally:
        server.stop()


@pytest.fixture
def context(installation: Settings, server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Context:
    for name, value in installation.environment().items():
        monkeypatch.setenv(name, value)
    return Context(installation)


@pytest.fixture
def client(server: PrefectServer) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def put_dataset(context: Context, model: str, dataset_id: str) -> Dataset:
    """A committed dataset with shards and metrics."""
    texts, prefix = prose(60), f"datasets/{model}/{dataset_id}/"
    for split, some in (("train", texts[:40]), ("validation", texts[40:50]), ("test", texts[50:])):
        context.bucket.put_table(f"{prefix}shards/{split}-00000.parquet", pa.table({"text": some}))
    metrics = [
        {
            "id": f"doc-{number}",
            "reason": None,
            "n_characters": len(text),
            "n_words": len(text.split()),
            "lang": "en",
            "letters_share": 0.8,
            "repetition": 0.1,
            "pii_leaks": 0,
        }
        for number, text in enumerate(texts)
    ]
    context.bucket.put_table(f"{prefix}metrics/part-00000.parquet", pa.Table.from_pylist(metrics))
    dataset = Dataset(
        dataset_id=dataset_id,
        model=model,
        drop_id=f"drop-{dataset_id}",
        prefix=prefix,
        history_ids=(),
        n_objects=1,
        n_read=60,
        n_kept=60,
        rejected={},
        redacted={},
        n_documents={"train": 40, "validation": 10, "test": 10},
        n_characters={"train": 1, "validation": 1, "test": 1},
    )
    commit_record(context.ledger, "prepare", model, dataset_id, dataset)
    return dataset


def candidate(context: Context, model: str, dataset_ids: tuple[str, ...] = ("d",)) -> Version:
    return context.ledger.versions.allocate(
        model=model, training_key=f"key-of-{model}", reason="drop", dataset_ids=dataset_ids, parent=None
    )


def artifact(client: SyncPrefectClient, key: str) -> dict[str, object]:
    """The newest artifact by this key."""
    answer = client._client.post("/artifacts/filter", json={"artifacts": {"key": {"any_": [key]}}, "limit": 1})
    found: list[dict[str, object]] = answer.raise_for_status().json()
    return found[0]


def task_names(client: SyncPrefectClient, flow_name: str) -> list[str]:
    """Names of the task runs of all runs of a flow. They reach the server's database some time after they ended."""
    answer = client._client.post("/task_runs/filter", json={"flows": {"name": {"any_": [flow_name]}}})
    return sorted(run["name"] for run in answer.raise_for_status().json())


def test_the_flow_trains_evaluates_and_exports_once(
    context: Context, client: SyncPrefectClient, tmp_path: Path
) -> None:
    recipe = f"""
name: tiny
base_model: file:{write_tiny_model(tmp_path / "tiny")}
training: {{steps: 8, batch_size: 2, sequence_length: 64, learning_rate: 0.03, validation_tokens: 256}}
gate: {{min_gain_over_base: 0.0, max_task_drop: 1.0, held_out_tokens: 512}}
export: {{max_quantization_loss: 1.0}}
"""
    context.bucket.put("recipes/tiny.yaml", recipe.encode())
    version = candidate(context, "tiny", (put_dataset(context, "tiny", "tiny-1").dataset_id,))
    exported = pipeline.train(model="tiny", version=version.version)
    assert exported.variant == "int8"
    assert context.bucket.exists(f"{exported.onnx_prefix}model.onnx")
    assert context.bucket.exists(f"{exported.onnx_prefix}manifest.json")
    assert artifact(client, "training-progress")["data"] == 100.0
    assert "data:image/png;base64," in str(artifact(client, "loss-curve")["data"])
    assert "passed: perplexity on new held-out data" in str(artifact(client, "evaluation")["data"])

    durations = context.ledger.stages.durations("tiny")
    assert pipeline.train(model="tiny", version=version.version) == exported
    assert context.ledger.stages.durations("tiny") == durations  # nothing ran again
    expected = sorted([f"{stage} tiny v1" for stage in ("train", "evaluate", "export")] * 2)
    wait_until("the task runs are named", lambda: task_names(client, "train") == expected, timeout_s=60)


def test_a_rejected_challenger_fails_the_flow_and_is_marked(context: Context, tmp_path: Path) -> None:
    recipe = f"""
name: poor
base_model: file:{write_tiny_model(tmp_path / "tiny")}
training: {{steps: 1, batch_size: 1, sequence_length: 64, validation_tokens: 256}}
gate: {{min_gain_over_base: 0.9, held_out_tokens: 256}}
"""
    context.bucket.put("recipes/poor.yaml", recipe.encode())
    version = candidate(context, "poor", (put_dataset(context, "poor", "poor-1").dataset_id,))
    with pytest.raises(GateRejected, match=r"a gain of .*; at least 90.0% is required"):
        pipeline.train(model="poor", version=version.version)
    now = context.ledger.versions.get("poor", version.version)
    assert now is not None
    assert now.state == "rejected"
    assert now.message is not None
    assert "at least 90.0% is required" in now.message
    assert context.ledger.stages.records("export", "poor") == []


def test_checks_and_drift_leave_links(context: Context, client: SyncPrefectClient) -> None:
    from flows import tasks

    @flow(name="checked")
    def checked(model: str, dataset: Dataset) -> object:
        return tasks.check(context, dataset)

    context.bucket.put(
        "recipes/watched.yaml", b"name: watched\nmonitoring: {reference_requests: 20, window_requests: 20}"
    )
    dataset = put_dataset(context, "watched", "watched-1")
    checked("watched", dataset)
    assert "/reports/watched/check/" in str(artifact(client, "data-docs")["data"])
    context.bucket.put("recipes/strict.yaml", b"name: strict\ncheck: {min_documents: 100}")
    with pytest.raises(CheckFailed, match="kept documents: expected at least 100, got 60"):
        checked("strict", put_dataset(context, "strict", "strict-1"))

    candidate(context, "watched", (dataset.dataset_id,))
    context.ledger.versions.crown("watched", "v1")
    prompts = questions("python", 20) + questions("cooking", 20)
    write_log(context.bucket, [prediction(n, prompt, model="watched") for n, prompt in enumerate(prompts)])
    verdicts = pipeline.drift(model="watched")
    assert [verdict.drifted for verdict in verdicts] == [True]
    assert "/reports/watched/drift/watched-v1-0000/report.html" in str(artifact(client, "drift-report")["data"])
    assert pipeline.drift(model="watched") == []


@flow(name="caller")
def caller(context: Context, version: Version) -> ExportedModel:
    return run_training(context, version)


class Pool:
    """The training pool's part: sees the runs of `train/train` that were made, and sets their states."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self.client = client
        self.deployment_id: UUID = client.create_deployment(client.create_flow(pipeline.train), "train")

    def runs(self, version: Version) -> list[FlowRun]:
        """Oldest first."""
        wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[self.deployment_id]))
        found = self.client.read_flow_runs(flow_run_filter=wanted)
        of_model = [run for run in found if run.parameters["model"] == version.model]
        return sorted(of_model, key=lambda run: run.created or 0)

    def wait_for_runs(self, version: Version, n: int) -> FlowRun:
        """The newest of `n` runs."""
        wait_until(f"{n} runs of {version.model}", lambda: len(self.runs(version)) == n, timeout_s=60)
        return self.runs(version)[-1]

    def run_in(self, pid: int, run: FlowRun) -> None:
        self.client.update_flow_run(run.id, infrastructure_pid=str(pid))
        self.end(run, Running())

    def end(self, run: FlowRun, state: State) -> None:
        self.client.set_flow_run_state(run.id, state, force=True)


@pytest.fixture
def pool(client: SyncPrefectClient) -> Pool:
    return Pool(client)


@contextmanager
def calling(context: Context, version: Version) -> Iterator[Future[ExportedModel]]:
    """A flow that starts the training and waits for it, in a thread as `serve` runs it."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(contextvars.copy_context().run, caller, context, version)


def export_of(context: Context, version: Version) -> ExportedModel:
    """Commit what the training would have left."""
    exported = ExportedModel(
        export_id=f"export-{version.model}",
        model=version.model,
        version=version.version,
        variant="int8",
        onnx_prefix=f"models/{version.model}/v1/onnx/",
        size_bytes=1,
        parity_max_logit_diff=0.0,
        parity_top1=1.0,
        perplexity_fp32=2.0,
        perplexity_variant=2.0,
        quantization_loss=0.0,
    )
    commit_record(context.ledger, "export", version.model, exported.export_id, exported)
    return exported


@contextmanager
def worker_process(run: FlowRun) -> Iterator[int]:
    """A process that works on a run, as a worker starts it."""
    env = {**os.environ, "PREFECT__FLOW_RUN_ID": str(run.id)}
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=env)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_training_whose_process_died_is_started_again(context: Context, pool: Pool, dead_pid: int) -> None:
    version = candidate(context, "dying")
    with calling(context, version) as called:
        first = pool.wait_for_runs(version, 1)
        pool.run_in(dead_pid, first)
        second = pool.wait_for_runs(version, 2)
        assert pool.runs(version)[0].state_name == "Crashed"
        exported = export_of(context, version)
        pool.end(second, Completed())
        assert called.result(timeout=60) == exported


def test_a_training_that_keeps_dying_is_given_up(context: Context, pool: Pool, dead_pid: int) -> None:
    version = candidate(context, "hopeless")
    with calling(context, version) as called:
        for n in (1, 2, 3):
            pool.run_in(dead_pid, pool.wait_for_runs(version, n))
        with pytest.raises(TidemillError, match="a run that survives, of 3, got as many crashes"):
            called.result(timeout=60)
    assert len(pool.runs(version)) == 3


def test_a_second_caller_takes_up_the_run_under_way(context: Context, pool: Pool) -> None:
    version = candidate(context, "shared")
    with calling(context, version) as first, calling(context, version) as second:
        run = pool.wait_for_runs(version, 1)
        with worker_process(run) as pid:
            pool.run_in(pid, run)
            time.sleep(3)  # long enough for either to have made another run
            assert len(pool.runs(version)) == 1
            exported = export_of(context, version)
            pool.end(run, Completed())
        assert first.result(timeout=60) == exported
        assert second.result(timeout=60) == exported


def test_a_rejection_is_told_with_its_reasons(context: Context, pool: Pool) -> None:
    version = candidate(context, "rejected")
    with calling(context, version) as called:
        run = pool.wait_for_runs(version, 1)
        context.ledger.versions.move(
            "rejected", version.version, "rejected", "failed: a gain of 2%", expected=["candidate"]
        )
        pool.end(run, Failed(message="GateRejected"))
        with pytest.raises(GateRejected, match="failed: a gain of 2%"):
            called.result(timeout=60)


@pytest.mark.parametrize(
    ("model", "ended"), [("failed", Failed(message="out of disk")), ("cancelled", Cancelled(message="by an operator"))]
)
def test_a_failed_or_cancelled_training_is_not_tried_again(
    context: Context, pool: Pool, model: str, ended: State
) -> None:
    version = candidate(context, model)
    with calling(context, version) as called:
        pool.end(pool.wait_for_runs(version, 1), ended)
        with pytest.raises(TidemillError, match=f"expected a completed flow run, got {ended.message}"):
            called.result(timeout=60)
    assert len(pool.runs(version)) == 1


def test_waiting_outlasts_a_restart_of_the_server(context: Context, pool: Pool, server: PrefectServer) -> None:
    version = candidate(context, "patient")
    with calling(context, version) as called:
        run = pool.wait_for_runs(version, 1)
        with worker_process(run) as pid:
            pool.run_in(pid, run)
            server.stop()
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{context.settings.prefect_api_url}/health")
            time.sleep(2)  # the caller asks every second
            server.start()
            exported = export_of(context, version)
            pool.end(run, Completed())
        assert called.result(timeout=120) == exported
