"""One preparation job on one runner, in a process of its own: `python -m benchmarks._flink_side` with a Task on stdin."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from lake.bucket import Bucket, BucketAddress
from lake.layout import inbox_prefix
from lake.ledger.arrivals import drop_id_of
from lake.recipe import Recipe
from lake.recipe.runner import Runner
from lake.records import Drop

RECIPE = Recipe(name="bench")


class Task(BaseModel):
    model_config = ConfigDict(frozen=True)

    address: BucketAddress
    dataset_id: str
    runner: Runner


def main() -> None:
    """Run it and print `{"wall_s": …, "n_read": …, "n_kept": …}`. The clock starts after the imports."""
    from beam_jobs.prepare import prepare
    from beam_jobs.runners import runner_options

    task = Task.model_validate_json(sys.stdin.read())
    bucket = Bucket(task.address)
    refs = tuple(bucket.list(inbox_prefix(RECIPE.name)))
    drop = Drop(drop_id=drop_id_of(refs), model=RECIPE.name, objects=refs, closed_at=datetime.now(UTC))
    options = runner_options(task.runner, task.address)
    started = time.monotonic()
    dataset = prepare(drop, RECIPE, task.address, task.dataset_id, [], options)
    wall_s = time.monotonic() - started
    print(json.dumps({"wall_s": wall_s, "n_read": dataset.n_read, "n_kept": dataset.n_kept}))


if __name__ == "__main__":
    main()
