"""From a recipe's runner to Beam options, and what is refused before a job is built."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
    WorkerOptions,
)
from pydantic import ValidationError

from beam_jobs.runners import JAR_VARIABLE, flink_overview, job_server_jar, runner_options
from lake.bucket import BucketAddress
from lake.errors import TidemillError
from lake.folder import FolderAddress
from lake.recipe.runner import Runner
from tests.ports import free_ports

FOLDER = FolderAddress(root=Path("/srv/tidemill"))
AWS = BucketAddress(endpoint_url=None, name="b", access_key_id=None, secret_access_key=None, region="eu-west-1")
NANIO = AWS.model_copy(update={"endpoint_url": "http://127.0.0.1:9400"})
ELSEWHERE = "192.0.2.7:8099"  # TEST-NET-1 (RFC 5737): no machine has it
EXTERNAL = {"environment": "external", "environment_config": "localhost:50000"}


@pytest.fixture
def endpoint() -> Iterator[str]:
    """A listener on loopback, as a job service is to a first look."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"localhost:{listener.getsockname()[1]}"


@pytest.fixture
def not_flink() -> Iterator[str]:
    """An HTTP server that is no JobManager."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(["another", "API"]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_one_worker_is_this_process() -> None:
    options = PipelineOptions(list(runner_options(Runner(), FOLDER)))
    assert options.view_as(StandardOptions).runner.endswith(".FnApiRunner")
    assert options.view_as(DirectOptions).direct_running_mode == "in_memory"


def test_more_workers_are_processes() -> None:
    options = PipelineOptions(list(runner_options(Runner(workers=3), FOLDER)))
    assert options.view_as(DirectOptions).direct_running_mode == "multi_processing"
    assert options.view_as(DirectOptions).direct_num_workers == 3


@pytest.mark.parametrize("name", ["spark", "portable", "flink"])
def test_a_job_service_is_spoken_to(name: str, endpoint: str) -> None:
    runner = Runner.model_validate({"name": name, "job_endpoint": endpoint, **EXTERNAL})
    options = PipelineOptions(list(runner_options(runner, FOLDER)))
    portable = options.view_as(PortableOptions)
    assert options.view_as(StandardOptions).runner == "PortableRunner"
    assert portable.job_endpoint == endpoint
    assert (portable.environment_type, portable.environment_config) == ("EXTERNAL", "localhost:50000")


def test_options_of_the_recipe_come_last_and_win() -> None:
    runner = Runner(name="dataflow", workers=9, options=("--region=europe-west1", "--max_num_workers=4"))
    options = PipelineOptions(list(runner_options(runner, AWS)))
    assert options.view_as(StandardOptions).runner == "DataflowRunner"
    assert options.view_as(WorkerOptions).max_num_workers == 4
    assert "--region=europe-west1" in runner_options(runner, AWS)


def test_every_version_is_one_that_beam_has_a_job_server_for() -> None:
    told = Runner.model_json_schema()["properties"]["flink_version"]["enum"]
    assert told == FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": "flink"}, "flink_master"),
        ({"name": "spark"}, "job_endpoint"),
        ({"name": "portable"}, "job_endpoint"),
        ({"name": "portable", "job_endpoint": "h:1", "environment": "docker"}, "environment_config"),
        ({"name": "flink", "flink_master": "no port"}, "flink_master"),
        ({"workers": 0}, "workers"),
        ({"name": "dask"}, "name"),
    ],
)
def test_what_is_incomplete_is_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Runner.model_validate(fields)


def test_a_cluster_that_does_not_answer_is_told() -> None:
    master = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(TidemillError) as caught:
        runner_options(Runner(name="flink", flink_master=master), FOLDER)
    assert caught.value.where == f"runner.flink_master {master}"
    assert "ConnectError" in caught.value.got


def test_another_server_is_not_taken_for_a_cluster(not_flink: str) -> None:
    with pytest.raises(TidemillError, match="REST API of a Flink JobManager"):
        flink_overview(not_flink)


def test_a_job_service_that_does_not_answer_is_told() -> None:
    endpoint = f"localhost:{free_ports(1)[0]}"
    with pytest.raises(TidemillError, match="expected a Beam job service, got Connection refused"):
        runner_options(Runner(name="portable", job_endpoint=endpoint), FOLDER)


@pytest.mark.parametrize(
    ("address", "fields", "told"),
    [
        (FOLDER, {}, "the folder /srv/tidemill of this machine"),
        (NANIO, {}, "which every machine takes for itself"),
        (FOLDER, {"shared_folder": True}, None),
        (AWS, {}, None),
        (NANIO.model_copy(update={"endpoint_url": "http://192.0.2.9:9000"}), {}, None),
    ],
)
def test_a_store_that_workers_elsewhere_cannot_reach_is_refused(
    address: BucketAddress | FolderAddress, fields: dict[str, object], told: str | None
) -> None:
    runner = Runner.model_validate({"name": "dataflow", **fields})
    if told is None:
        assert runner_options(runner, address)
    else:
        with pytest.raises(TidemillError, match=told):
            runner_options(runner, address)


def test_loopback_is_refused_for_a_cluster_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    # Another machine answers.
    monkeypatch.setattr("socket.create_connection", lambda address, timeout: socket.socket())
    with pytest.raises(TidemillError, match="expected the cluster on this machine"):
        runner_options(Runner(name="portable", job_endpoint=ELSEWHERE), AWS)
    assert runner_options(Runner.model_validate({"name": "portable", "job_endpoint": ELSEWHERE, **EXTERNAL}), AWS)
    with pytest.raises(TidemillError, match="workers on other machines"):
        runner_options(Runner.model_validate({"name": "portable", "job_endpoint": ELSEWHERE, **EXTERNAL}), NANIO)


def test_the_job_server_is_found_in_its_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(JAR_VARIABLE, raising=False)
    beam = version("apache-beam")
    with pytest.raises(TidemillError) as caught:
        job_server_jar("1.20")
    assert (
        f"mvn dependency:get -Dtransitive=false -Dartifact=org.apache.beam:beam-runners-flink-1.20-job-server:{beam}"
        in (caught.value.remedy)
    )

    folder = tmp_path / ".m2/repository/org/apache/beam/beam-runners-flink-1.20-job-server" / beam
    folder.mkdir(parents=True)
    in_repository = folder / f"beam-runners-flink-1.20-job-server-{beam}.jar"
    in_repository.touch()
    assert job_server_jar("1.20") == in_repository

    monkeypatch.setenv(JAR_VARIABLE, str(tmp_path / "absent.jar"))
    with pytest.raises(TidemillError, match=rf"{JAR_VARIABLE}: .*got no file .*absent\.jar"):
        job_server_jar("1.20")
    (tmp_path / "absent.jar").touch()
    assert job_server_jar("1.20") == tmp_path / "absent.jar"
