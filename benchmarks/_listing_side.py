"""One side of a listing, in a process of its own: `python -m benchmarks._listing_side SIDE`; prints JSON.

The installation comes by `TIDEMILL_*`. Each side imports only what it needs, and what that costs counts.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

MODEL = "bench"
IDLE_S = 30.0


def floor() -> dict[str, float]:
    """What any client has to do: boto3's own paginator, counting."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=os.environ["TIDEMILL_S3_ENDPOINT_URL"],
        aws_access_key_id=os.environ["TIDEMILL_S3_ACCESS_KEY_ID"],
        aws_secret_access_key=os.environ["TIDEMILL_S3_SECRET_ACCESS_KEY"],
        region_name=os.environ["TIDEMILL_S3_REGION"],
    )
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=os.environ["TIDEMILL_BUCKET"], Prefix=f"inbox/{MODEL}/"
    )
    return {"n_found": sum(len(page.get("Contents", ())) for page in pages)}


def reconcile() -> dict[str, float]:
    """The product's comparison of the whole inbox with the ledger, and the drop that follows from it."""
    from flows.context import Context
    from flows.watch import reconcile_model

    context = Context.from_environment()
    return {"n_found": reconcile_model(context, MODEL, context.settings.settle_s)}


def idle() -> dict[str, float]:
    """The watcher on an inbox in which nothing happens: its first look, a whole listing, and IDLE_S of further ones."""
    from flows.context import Context
    from flows.watch import Watcher

    def complain(what: str, error: Exception | None) -> None:
        if error is not None:
            raise RuntimeError(what) from error

    context = Context.from_environment()
    watcher = Watcher(context, complain)
    started_s, cpu_s = time.monotonic(), time.process_time()
    watcher.tick()
    whole_s, whole_cpu_s = time.monotonic() - started_s, time.process_time() - cpu_s
    n_ticks, began_s, cpu_s = 0, time.monotonic(), time.process_time()
    while time.monotonic() - began_s < IDLE_S:
        tick_s = time.monotonic()
        watcher.tick()
        n_ticks += 1
        time.sleep(max(0.0, context.settings.poll_interval_s - (time.monotonic() - tick_s)))
    idle_s = time.monotonic() - began_s
    return {
        "n_ticks": n_ticks,
        "whole_s": whole_s,
        "whole_cpu_s": whole_cpu_s,
        "cpu_s_per_minute": (time.process_time() - cpu_s) * 60 / idle_s,
    }


def _peak_mb() -> float:
    """Largest resident set since this program began. `ru_maxrss` would also tell what the forking process had."""
    told = Path("/proc/self/status").read_text()
    return int(told.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    began_s = time.monotonic()
    told = {"floor": floor, "reconcile": reconcile, "idle": idle}[sys.argv[1]]()
    used = resource.getrusage(resource.RUSAGE_SELF)
    told |= {
        "wall_s": time.monotonic() - began_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": _peak_mb(),
    }
    print(json.dumps(told))
