"""The preparation job on Beam's portable runner: another process plans it, and the workers are processes of a pool.

What differs from one process is what differs on any cluster: DoFns, elements and errors are serialized, nothing is shared,
and stages are cut and ordered by somebody else.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from beam_jobs import part
from beam_jobs.past import Past
from beam_jobs.prepare import prepare
from beam_jobs.runners import runner_options
from beam_jobs.worker_errors import worker_error
from lake.bucket import Bucket
from lake.errors import StorageError, TidemillError
from lake.folder import Folder
from lake.layout import dataset_prefix
from lake.recipe import Recipe
from lake.recipe.runner import Runner
from lake.store import Store
from tests.documents import document
from tests.portable import prism, worker_pool
from tests.preparation import EVERYTHING, MODEL, await_some, counts, digests, put, texts

pytestmark = pytest.mark.integration

RECIPE = Recipe(name=MODEL)
LOCAL = Runner()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("portable")
    with prism(folder) as endpoint, worker_pool(folder) as pool:
        yield Runner(name="portable", job_endpoint=endpoint, environment="external", environment_config=pool)


@pytest.fixture(params=["pool", "processes"])
def other(request: pytest.FixtureRequest) -> Runner:
    """Runners whose workers are other processes: those of the pool, and the local one's own."""
    if request.param == "processes":
        return Runner(workers=2)
    runner: Runner = request.getfixturevalue("runner")
    return runner


@pytest.fixture(params=["bucket", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Folder(tmp_path)
    bucket: Bucket = request.getfixturevalue("bucket")
    return bucket


def test_the_outcome_is_that_of_one_process_byte_for_byte(
    store: Store, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "PART_OBJECTS", 3)
    drop = put(store, texts(600), n_objects=12)
    alone = prepare(drop, RECIPE, store.address, "alone", [], runner_options(LOCAL, store.address))
    apart = prepare(drop, RECIPE, store.address, "apart", [], runner_options(runner, store.address))
    assert counts(apart) == counts(alone)
    assert alone.rejected["exact_duplicate"] == 60
    assert alone.rejected["near_duplicate"] > 50
    assert digests(store, apart) == digests(store, alone)


def test_so_is_that_of_a_recipe_which_asks_for_everything_against_history(
    tmp_path: Path, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "PART_OBJECTS", 2)
    store = Folder(tmp_path)
    local, apart = runner_options(LOCAL, store.address), runner_options(runner, store.address)
    first = put(store, texts(100), n_objects=6)
    found = [prepare(first, EVERYTHING, store.address, name, [], how) for name, how in (("a", local), ("b", apart))]
    assert digests(store, found[0]) == digests(store, found[1])
    past = [Past("a", store.address, found[0].prefix)]
    second = put(store, [document(number) for number in range(50, 150)], n_objects=4)
    found = [prepare(second, EVERYTHING, store.address, name, past, how) for name, how in (("c", local), ("d", apart))]
    assert counts(found[0]) == counts(found[1])
    assert digests(store, found[0]) == digests(store, found[1])
    assert 0 < found[0].n_kept < 60


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # Beam's, for the lost worker
def test_a_worker_that_is_killed_fails_the_job_and_the_next_attempt_leaves_the_same(
    bucket: Bucket, other: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "PART_OBJECTS", 1)
    drop = put(bucket, texts(600), n_objects=24)
    alone = prepare(drop, RECIPE, bucket.address, "alone", [], runner_options(LOCAL, bucket.address))
    options = runner_options(other, bucket.address)
    raised: list[RuntimeError | TidemillError] = []

    def attempt() -> None:
        try:
            prepare(drop, RECIPE, bucket.address, "apart", [], options)
        except (RuntimeError, TidemillError) as error:
            raised.append(error)

    job = threading.Thread(target=attempt)
    job.start()
    work = f"{dataset_prefix(MODEL, 'apart')}work/"
    done = await_some(bucket, work, lambda: not job.is_alive())
    _kill_worker()
    job.join(timeout=120)
    assert not job.is_alive(), "a job without its worker waits for ever"
    assert [type(worker_error(each)) for each in raised] == [TidemillError]
    assert len(done) < 24, "killed too late to be in the middle"

    apart = prepare(drop, RECIPE, bucket.address, "apart", [], options)
    assert counts(apart) == counts(alone)
    assert digests(bucket, apart) == digests(bucket, alone)


def test_an_error_of_a_worker_is_told_as_it_was_raised(bucket: Bucket, other: Runner) -> None:
    drop = put(bucket, texts(10), n_objects=2)
    locked = {bucket.name: bucket.address.model_copy(update={"secret_access_key": "another"})}
    with pytest.raises(StorageError) as alone:
        prepare(drop, RECIPE, bucket.address, "d", [], runner_options(LOCAL, bucket.address), sources=locked)
    with pytest.raises((RuntimeError, StorageError)) as apart:
        prepare(drop, RECIPE, bucket.address, "d", [], runner_options(other, bucket.address), sources=locked)
    told = worker_error(apart.value)
    assert type(told) is StorageError
    assert str(told) == str(alone.value)


def _kill_worker() -> None:
    """SIGKILL for the newest worker process: one that works on the running job."""
    workers = [each for each in psutil.Process().children(recursive=True) if _is_worker(" ".join(each.cmdline()))]
    os.kill(max(workers, key=lambda each: each.create_time()).pid, signal.SIGKILL)


def _is_worker(command: str) -> bool:
    return "SdkHarness(" in command or ("sdk_worker_main" in command and "/bin/sh" not in command)
