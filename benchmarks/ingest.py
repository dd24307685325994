"""From an object in the bucket to its pipeline: how soon, and what an inbox of 100,000 objects costs.

*Latency* is that of a real installation (store, Prefect server, `flows.serve`) with the product's defaults. *Listings*
run in processes of their own, imports included, beside their floor: a bare boto3 paginator that counts the same
objects in the same store. nanio looks at every name of a folder for each page of 1,000, so its floor is high, and
higher in one flat folder than in many.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from benchmarks._arrival import Arrival, arrivals
from benchmarks._inbox import fill
from benchmarks._listing_side import IDLE_S, MODEL
from benchmarks.report import Figure, at_most, told
from flows.watch import FULL_LISTING_AT_LEAST_EVERY_S, LISTING_SHARE
from lake.bucket import Bucket, BucketAddress
from lake.layout import recipe_key
from lake.ledger import Ledger
from lake.recipe import Recipe
from lake.settings import Settings, load_settings
from tests.s3 import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, nanio

N_DROPS = 40
N_OBJECTS = 100_000
N_FOLDERS = 100
MAX_RECONCILE_S, MAX_PEAK_MB = 30.0, 300.0
MAX_MEDIAN_S, MAX_P99_S = 2.0, 5.0
ROOT = Path(__file__).parent.parent


class Listed(BaseModel):
    """One side's run: the whole process, and the store's processor time meanwhile."""

    model_config = ConfigDict(frozen=True)

    n_found: int
    wall_s: float
    cpu_s: float
    peak_mb: float
    store_cpu_s: float


def run() -> list[Figure]:
    return [*_listings(1), *_listings(N_FOLDERS), *_latency(arrivals(N_DROPS))]


def _latency(seen: list[Arrival]) -> list[Figure]:
    running = sorted(arrival.running_after_s for arrival in seen)
    closed = sorted(arrival.closed_after_s for arrival in seen)
    what = f"{len(seen)} drops of one object each, one after another at random phases, on models that had one before"
    return [
        at_most("visible → first stage, median", percentile(running, 50), MAX_MEDIAN_S, "s", what),
        at_most("visible → first stage, p99", percentile(running, 99), MAX_P99_S, "s", what),
        told("visible → first stage, largest", running[-1], "s", what),
        told("of it until its drop is closed, median", percentile(closed, 50), "s", "polling and the settle window"),
    ]


def percentile(ordered: list[float], percent: int) -> float:
    """By nearest rank: of fewer than 100, the 99th percentile is the largest."""
    return ordered[-(-len(ordered) * percent // 100) - 1]


def _listings(n_folders: int) -> list[Figure]:
    shape = "flat" if n_folders == 1 else f"{n_folders} folders"
    with _inbox(n_folders) as (settings, store):
        floor, first, again = (_listed(side, settings, store) for side in ("floor", "reconcile", "reconcile"))
        found = [listed.n_found for listed in (floor, first, again)]
        if found != [N_OBJECTS, N_OBJECTS, 0]:
            raise AssertionError(f"found {found} objects by floor, first and second run, expected all, all and none")
        idle = _idle(settings, store) if n_folders == 1 else []
    beside = f"floor {floor.wall_s:.1f} s, {floor.peak_mb:.0f} MB: boto3's paginator alone"
    figures = [
        told(f"{shape}: floor", floor.wall_s, "s", f"{N_OBJECTS:,} objects; {_cpu(floor)}"),
        at_most(f"{shape}: into an empty ledger", first.wall_s, MAX_RECONCILE_S, "s", f"{beside}; {_cpu(first)}"),
        at_most(f"{shape}: into an empty ledger, memory", first.peak_mb, MAX_PEAK_MB, "MB", "largest resident set"),
        at_most(f"{shape}: with nothing new", again.wall_s, MAX_RECONCILE_S, "s", f"{beside}; {_cpu(again)}"),
        at_most(f"{shape}: with nothing new, memory", again.peak_mb, MAX_PEAK_MB, "MB", "largest resident set"),
        told(f"{shape}: with nothing new, over floor", again.wall_s / floor.wall_s, "×", "wall clock"),
    ]
    return figures + idle


def _cpu(listed: Listed) -> str:
    return f"CPU {listed.cpu_s:.1f} s and {listed.store_cpu_s:.1f} s in the store"


@contextmanager
def _inbox(n_folders: int) -> Iterator[tuple[Settings, psutil.Process]]:
    """An installation's settings with a filled inbox, a recipe and an empty ledger; and the process of its store."""
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name, nanio(Path(name) / "s3") as url:
        settings = load_settings(
            home=Path(name) / "home",
            bucket="bench",
            s3_endpoint_url=url,
            s3_access_key_id=ACCESS_KEY_ID,
            s3_secret_access_key=SECRET_ACCESS_KEY,
            s3_region=REGION,
        )
        bucket = Bucket(BucketAddress.of(settings))
        bucket.ensure(create=True)
        bucket.put(recipe_key(MODEL), Recipe(name=MODEL).model_dump_json().encode())
        fill(Path(name) / "s3" / "data", bucket, MODEL, N_OBJECTS, n_folders)
        ledger = Ledger(settings)
        ledger.migrate()
        ledger.engine.dispose()
        port = url.rpartition(":")[2]
        store = next(child for child in psutil.Process().children() if port in child.cmdline())
        yield settings, store


def _listed(side: str, settings: Settings, store: psutil.Process) -> Listed:
    before_s = _cpu_s(store)
    told_by_side = _side(side, settings)
    return Listed.model_validate(told_by_side | {"store_cpu_s": _cpu_s(store) - before_s})


def _idle(settings: Settings, store: psutil.Process) -> list[Figure]:
    before_s = _cpu_s(store)
    seen = _side("idle", settings)
    store_s = _cpu_s(store) - before_s
    every_s = seen["whole_s"] + min(seen["whole_s"] / LISTING_SHARE, FULL_LISTING_AT_LEAST_EVERY_S)
    between = f"{seen['n_ticks']:.0f} looks in {IDLE_S:g} s between two whole listings"
    return [
        told("idle watcher, between whole listings", seen["cpu_s_per_minute"], "CPU s/min", f"flat inbox; {between}"),
        told(
            "idle watcher, whole listings",
            seen["whole_cpu_s"] * 60 / every_s,
            "CPU s/min",
            f"one takes {seen['whole_cpu_s']:.1f} CPU s, every {every_s:.0f} s",
        ),
        told("idle watcher, store", store_s, "CPU s", f"for one whole listing and {IDLE_S:g} s of looks"),
    ]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _side(side: str, settings: Settings) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._listing_side", side],
        env={**os.environ, **settings.environment()},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{side}: {done.stderr.replace(SECRET_ACCESS_KEY, '…')[-2_000:]}")
    told_by_side: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told_by_side
