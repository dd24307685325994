"""The same preparation job in one process, in two, through Beam's portable runner, and on a Flink cluster.

All write the same files, which is required. Flink is a real cluster of two TaskManagers on this machine, its Python workers
processes of a pool. So the figures tell what it costs to run on a cluster rather than what a cluster gains: that takes
more machines than one. Where Beam's Flink job server cannot be had, the figure says so and is left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from beam_jobs.runners import JAR_VARIABLE
from benchmarks._documentation import objects
from benchmarks._flink_side import RECIPE, Task
from benchmarks.report import Figure, told
from lake.bucket import Bucket
from lake.layout import dataset_prefix, inbox_prefix
from lake.recipe.runner import Runner
from tests.flink import VERSION, fetched_jars, flink, found_job_server
from tests.portable import built_prism, prism, worker_pool
from tests.s3 import SECRET_ACCESS_KEY, address_of, nanio

ROOT = Path(__file__).parent.parent
N_BYTES = 60_000_000
ROUNDS = 2
ONE = "one process"


class Measured(BaseModel):
    model_config = ConfigDict(frozen=True)

    wall_s: float
    n_read: int
    n_kept: int


def run() -> list[Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder,
        nanio(Path(folder)) as url,
        _runners(Path(folder)) as (runners, missing),
    ):
        bucket = Bucket(address_of(url, "bench"))
        bucket.ensure(create=True)
        for name, content in objects(N_BYTES):
            bucket.put(inbox_prefix(RECIPE.name) + name, content)
        best: dict[str, Measured] = {}
        for turn in range(ROUNDS):
            for name, runner in runners.items() if turn % 2 == 0 else reversed(runners.items()):
                found = _measured(Task(address=bucket.address, dataset_id=_id(name), runner=runner))
                best[name] = min(best.get(name, found), found, key=lambda each: each.wall_s)
        _require_same(bucket, list(runners))
    return _figures(best, missing)


def _figures(best: Mapping[str, Measured], missing: str) -> list[Figure]:
    one = best[ONE]
    what = f"{one.n_read} documents, {one.n_kept} kept, {N_BYTES / 1e6:.0f} MB of text, {os.cpu_count()} cores"
    figures = [told(ONE, one.wall_s, "s", f"wall, the better of {ROUNDS} runs; {what}{missing}")]
    for name, found in best.items():
        if name != ONE:
            figures.append(told(name, found.wall_s, "s", "wall, likewise; the same files, byte for byte"))
            figures.append(told(f"{name}, over {ONE}", found.wall_s / one.wall_s, "×", "wall"))
    return figures


@contextmanager
def _runners(folder: Path) -> Iterator[tuple[dict[str, Runner], str]]:
    """The runners that can be had here by what they are called, and what is to be said of those that cannot."""
    runners, missing = {ONE: Runner(), "two processes": Runner(workers=2)}, ""
    with ExitStack() as stack:
        pool = stack.enter_context(worker_pool(folder))
        outside: dict[str, object] = {"environment": "external", "environment_config": pool}
        program = built_prism()
        if isinstance(program, str):
            missing += f"; {program}"
        else:
            endpoint = stack.enter_context(prism(folder))
            fields = {"name": "portable", "job_endpoint": endpoint, **outside}
            runners["Prism, one worker process"] = Runner.model_validate(fields)
        jars, jar = fetched_jars(), found_job_server()
        if isinstance(jars, str) or isinstance(jar, str):
            missing += f"; no Flink: {jars if isinstance(jars, str) else jar}"
        else:
            os.environ[JAR_VARIABLE] = str(jar)
            cluster = stack.enter_context(flink(folder / "flink"))
            fields = {
                "name": "flink",
                "workers": 2,
                "flink_master": cluster.master,
                "flink_version": VERSION,
                **outside,
            }
            runners["Flink, two task managers"] = Runner.model_validate(fields)
        yield runners, missing


def _measured(task: Task) -> Measured:
    """The job in a process of its own. The secret is a test's, and goes through stdin all the same."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._flink_side"],
        input=task.model_dump_json(),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{task.dataset_id}: {done.stderr.replace(SECRET_ACCESS_KEY, '…')[-2_000:]}")
    return Measured.model_validate_json(done.stdout.splitlines()[-1])


def _require_same(bucket: Bucket, names: list[str]) -> None:
    """Every runner has left the same files."""
    left = []
    for name in names:
        prefix = dataset_prefix(RECIPE.name, _id(name))
        left.append({key.removeprefix(prefix): bucket.digest(key) for key in list(bucket.keys(prefix))})
    for name, files in zip(names, left, strict=True):
        if files != left[0]:
            differing = sorted(key for key in files.keys() | left[0].keys() if files.get(key) != left[0].get(key))
            raise AssertionError(f"{name} and {names[0]} differ in {len(differing)} files, the first {differing[0]}")


def _id(name: str) -> str:
    return name.replace(",", "").replace(" ", "-").lower()
