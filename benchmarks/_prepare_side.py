"""One side of the preparation benchmarks, in a process of its own: `python -m benchmarks._prepare_side SIDE`.

The store comes by stdin; prints JSON. Everything is imported before the clock starts, as in a long-lived worker.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from benchmarks._documentation import objects
from benchmarks._environment import environment
from benchmarks._memory import peak_bytes
from lake.bucket import Bucket, BucketAddress
from lake.layout import dataset_prefix, inbox_prefix
from lake.ledger.arrivals import drop_id_of
from lake.recipe import Recipe
from lake.records import Drop
from tests.s3 import SECRET_ACCESS_KEY, address_of, nanio

RECIPE = Recipe(name="bench")
ROOT = Path(__file__).parent.parent
_TWO_WORKERS = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


class Measured(BaseModel):
    """One run, without the imports: `cpu_s` of the process (worker processes excepted), `wall_s`, its largest memory.

    `places` are samples by module and function, where they were taken.
    """

    model_config = ConfigDict(frozen=True)

    n_documents: int
    cpu_s: float
    wall_s: float
    import_cpu_s: float
    peak_bytes: int
    places: dict[str, dict[str, int]] = {}


@contextmanager
def dropped(n_bytes: int) -> Iterator[Bucket]:
    """A store of its own with `n_bytes` of documents in the inbox."""
    with TemporaryDirectory(prefix="tidemill-bench-") as folder, nanio(Path(folder)) as url:
        bucket = Bucket(address_of(url, "bench"))
        bucket.ensure(create=True)
        for name, content in objects(n_bytes):
            bucket.put(inbox_prefix(RECIPE.name) + name, content)
        yield bucket


def measured(side: str, bucket: Bucket) -> Measured:
    """Run one side in a process of its own. The secret is a test's, and goes through stdin all the same."""
    print(f"{side} …", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._prepare_side", side],
        input=bucket.address.model_dump_json(),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{side}: {done.stderr.replace(SECRET_ACCESS_KEY, '…')[-2_000:]}")
    found = Measured.model_validate_json(done.stdout.splitlines()[-1])
    print(f"{side}: {found.cpu_s:.1f} s CPU, {found.wall_s:.1f} s", flush=True)
    return found


def _drop(bucket: Bucket) -> Drop:
    refs = tuple(bucket.list(inbox_prefix(RECIPE.name)))
    return Drop(drop_id=drop_id_of(refs), model=RECIPE.name, objects=refs, closed_at=datetime.now(UTC))


def _job(bucket: Bucket, *options: str, side: str = "job") -> int:
    from beam_jobs.prepare import prepare
    from beam_jobs.runners import LOCAL

    return prepare(_drop(bucket), RECIPE, bucket.address, side, (), (*LOCAL, *options)).n_read


def _loop(bucket: Bucket) -> int:
    """The same functions one after the other, everything in memory: no Beam, no shuffle, no intermediate files."""
    from beam_jobs.dedup import decide, first_copies
    from beam_jobs.neighbours import Entries, candidate_pairs
    from beam_jobs.numbers import fresh_source, numbers_of
    from beam_jobs.part import column, ids_of, parts_of, read_part, survivors
    from beam_jobs.verify import Documents, verify
    from beam_jobs.write import LeftOut, write_source

    rules = RECIPE.prepare
    table = pa.concat_tables(
        chunk for part in parts_of(_drop(bucket).objects) for chunk in read_part(lambda _: bucket, part, rules)
    )
    kept = survivors(table)
    numbers = numbers_of(fresh_source(0, 0), len(kept))
    lists = kept["keys"].combine_chunks()
    of = np.repeat(np.arange(len(kept)), pc.list_value_length(lists).to_numpy())
    entries = Entries(lists.flatten().to_numpy(), numbers[of], column(kept, "signature")[of])
    pairs = np.unique(candidate_pairs(entries, rules.max_hamming), axis=0)
    shingles = kept.append_column("id", ids_of(kept)).select(["id", "place_id", "shingles"])
    documents = Documents(lambda _: shingles)
    alike = verify(pairs, first_copies(column(kept, "exact"), numbers), documents, rules.min_jaccard)
    duplicates = decide([alike], rules.min_jaccard, documents.similarity)
    rows = np.flatnonzero(pc.is_null(table["reason"]).to_numpy())
    nothing = np.zeros(0, np.int64)
    dropped_rows = {int(rows[number - numbers[0]]): each for number, each in duplicates.items()}
    left_out = LeftOut(dropped_rows, over_quota=nothing, reserved=nothing)
    write_source(bucket, dataset_prefix(RECIPE.name, "loop"), "all", table, left_out, rules)
    return len(table)


def _profiled(bucket: Bucket) -> tuple[int, dict[str, dict[str, int]]]:
    from benchmarks._sampled import Sampled

    with Sampled() as sampled:
        n_documents = _job(bucket, side="profile")
    places: dict[str, dict[str, int]] = {}
    for (module, function), n in sampled.counts.items():
        places.setdefault(module, {})[function] = n
    return n_documents, places


SIDES: dict[str, Callable[[Bucket], int]] = {
    "job": _job,
    "loop": _loop,
    "workers": lambda bucket: _job(bucket, *_TWO_WORKERS, side="workers"),
}


def _main(side: str) -> None:
    for module in ("beam_jobs.prepare", "pandas"):  # Arrow imports pandas when it first needs to know
        import_module(module)
    from beam_jobs.rules.language import detect_language

    detect_language("loads its model")
    bucket = Bucket(BucketAddress.model_validate_json(sys.stdin.read()))
    places: dict[str, dict[str, int]] = {}
    import_cpu_s, started = _cpu_s(), time.monotonic()
    if side == "profile":
        n_documents, places = _profiled(bucket)
    else:
        n_documents = SIDES[side](bucket)
    found = Measured(
        n_documents=n_documents,
        cpu_s=_cpu_s() - import_cpu_s,
        wall_s=time.monotonic() - started,
        import_cpu_s=import_cpu_s,
        peak_bytes=peak_bytes(),
        places=places,
    )
    print(json.dumps(found.model_dump()))


def _cpu_s() -> float:
    """User and system time of this process and of those that it started and that have ended."""
    return sum(
        resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


if __name__ == "__main__":
    _main(sys.argv[1])
