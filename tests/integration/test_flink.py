"""The preparation job on a standalone Flink cluster: one JobManager and two TaskManagers, each a process of its own.

What a cluster says of itself is tested wherever Flink can be had. The job itself needs Beam's job server as well.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beam_jobs import part
from beam_jobs.prepare import prepare
from beam_jobs.runners import JAR_VARIABLE, flink_overview, runner_options
from lake.bucket import Bucket
from lake.errors import TidemillError
from lake.folder import Folder, FolderAddress
from lake.layout import dataset_prefix
from lake.recipe import Recipe
from lake.recipe.runner import Runner
from lake.records import Dataset, Drop
from lake.store import Store
from tests.flink import VERSION, FlinkCluster, flink, flink_job_server
from tests.ports import free_ports
from tests.preparation import MODEL, await_some, counts, digests, put, texts

pytestmark = pytest.mark.integration

RECIPE = Recipe(name=MODEL)
FOLDER = FolderAddress(root=Path("/srv/tidemill"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    with flink(tmp_path_factory.mktemp("flink")) as started:
        yield started


@pytest.fixture
def runner(cluster: FlinkCluster, jar: Path, settings: object, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setenv(JAR_VARIABLE, str(jar))  # after the settings, which clear all such variables
    return Runner(name="flink", workers=2, flink_master=cluster.master, flink_version=VERSION)


@pytest.fixture(scope="module")
def jar() -> Path:
    return flink_job_server()


@pytest.fixture(params=["bucket", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Folder(tmp_path)
    bucket: Bucket = request.getfixturevalue("bucket")
    return bucket


def test_a_cluster_is_asked_before_the_job_is_built(cluster: FlinkCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JAR_VARIABLE, __file__)  # any file: no job is run
    runner = Runner(name="flink", workers=2, flink_master=cluster.master, flink_version=VERSION)
    options = runner_options(runner, FOLDER)
    assert {"--runner=FlinkRunner", f"--flink_master={cluster.master}", "--parallelism=2"} <= set(options)
    assert "--environment_type=LOOPBACK" in options

    with pytest.raises(TidemillError, match="expected at least 3 task slots, got 2 on 2 task managers"):
        runner_options(runner.model_copy(update={"workers": 3}), FOLDER)
    with pytest.raises(TidemillError, match=r"expected Flink 2\.2, got 1\.20\.\d"):
        runner_options(runner.model_copy(update={"flink_version": "2.2"}), FOLDER)
    with ThreadPoolExecutor() as threads, pytest.raises(TidemillError, match="run a job server beside the cluster"):
        threads.submit(runner_options, runner, FOLDER).result()
    silent = runner.model_copy(update={"flink_master": f"127.0.0.1:{free_ports(1)[0]}"})
    with pytest.raises(TidemillError, match="start the cluster, or correct the address"):
        runner_options(silent, FOLDER)


def test_a_task_manager_that_has_died_is_missed(cluster: FlinkCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JAR_VARIABLE, __file__)
    runner = Runner(name="flink", workers=2, flink_master=cluster.master, flink_version=VERSION)
    list(cluster.task_managers.values())[-1].kill()
    try:
        cluster.await_slots(1)
        with pytest.raises(TidemillError, match="expected at least 2 task slots, got 1 on 1 task managers"):
            runner_options(runner, FOLDER)
    finally:
        cluster.start_task_manager()
        cluster.await_slots(2)
    assert flink_overview(cluster.master)["taskmanagers"] == 2


def test_the_outcome_is_that_of_one_process_byte_for_byte(
    store: Store, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "PART_OBJECTS", 3)
    drop = put(store, texts(1_500), n_objects=12)
    alone = _alone(store, drop)
    apart = prepare(drop, RECIPE, store.address, "apart", [], runner_options(runner, store.address))
    assert counts(apart) == counts(alone)
    assert alone.rejected["exact_duplicate"] == 150
    assert alone.rejected["near_duplicate"] > 130
    assert digests(store, apart) == digests(store, alone)


def test_a_task_manager_killed_in_mid_job_changes_nothing(
    bucket: Bucket, runner: Runner, cluster: FlinkCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "PART_OBJECTS", 1)
    drop = put(bucket, texts(1_200), n_objects=24)
    alone = _alone(bucket, drop)
    # On one slot of two, so that the one which is left has room for all of it.
    options = runner_options(runner.model_copy(update={"workers": 1}), bucket.address)
    before = {job["jid"] for job in cluster.get("/jobs/overview")["jobs"]}
    seen: list[Sequence[str]] = []

    def kill_in_the_middle() -> None:
        seen.append(await_some(bucket, f"{dataset_prefix(MODEL, 'apart')}work/", is_over=lambda: False))
        _busy_task_manager(cluster).kill()

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    try:
        apart = prepare(
            drop, RECIPE, bucket.address, "apart", [], options
        )  # Beam starts job servers in a main thread only
    finally:
        killer.join(timeout=120)
        cluster.start_task_manager()
    assert 0 < len(seen[0]) < 24, "killed too late to be in the middle"
    (job,) = [job for job in cluster.get("/jobs/overview")["jobs"] if job["jid"] not in before]
    assert job["state"] == "FINISHED"
    assert cluster.get(f"/jobs/{job['jid']}/exceptions")["exceptionHistory"]["entries"], "nothing had to be restarted"
    assert counts(apart) == counts(alone)
    assert digests(bucket, apart) == digests(bucket, alone)
    cluster.await_slots(2)


def _alone(store: Store, drop: Drop) -> Dataset:
    return prepare(drop, RECIPE, store.address, "alone", [], runner_options(Runner(), store.address))


def _busy_task_manager(cluster: FlinkCluster, within_s: float = 60.0) -> subprocess.Popen[bytes]:
    """The process of the TaskManager whose slot is taken."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        for told in cluster.get("/taskmanagers")["taskmanagers"]:
            if told["freeSlots"] == 0:
                return cluster.task_managers[told["id"]]
        time.sleep(0.1)
    raise AssertionError("no TaskManager works")
