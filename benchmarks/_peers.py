"""Other deduplicators, each in an environment of its own, on the same documents; nothing of theirs is in ours.

Pinned with hashes in `benchmarks/peers/`, installed once into the user's cache. text-dedup's pins leave out what its
SimHash does not need (Spark, UniSim, a documentation builder), and are of 0.4.0, the last version for Python 3.11.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import xxhash
from pydantic import BaseModel, ConfigDict

from benchmarks._documentation import CACHE
from benchmarks._environment import environment

PINS = Path(__file__).parent / "peers"
# Their defaults look things up on a hub; here everything is on this machine.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


class Ran(BaseModel):
    """One run: processor time of the program and all it started, wall time, and how many documents it kept."""

    model_config = ConfigDict(frozen=True)

    cpu_s: float
    wall_s: float
    import_cpu_s: float
    n_kept: int


def ran(name: str, documents: Path, folder: Path) -> Ran:
    """Run `peers/<name>_side.py` on a JSONL file with `text`, in its environment and an empty folder of its own."""
    folder.mkdir(parents=True)
    side = PINS / f"{name}_side.py"
    settings = {**environment(), **_OFFLINE, "HF_HOME": str(folder / "hub"), "PYTHONPATH": ""}
    done = subprocess.run(
        [_python(name), side, documents, folder],
        capture_output=True,
        text=True,
        cwd=folder,
        env=settings,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {(done.stderr or done.stdout)[-2_000:]}")
    return Ran(**json.loads(done.stdout.splitlines()[-1]))


def _python(name: str) -> Path:
    """The interpreter of the peer's environment, made when the cache lacks it."""
    pins = PINS / f"{name}.txt"
    folder = CACHE / f"{name}-{xxhash.xxh3_64_hexdigest(pins.read_bytes())}"
    if not folder.exists():
        print(f"installing {name}, once …", flush=True)
        uv, partial = Path(sys.executable).with_name("uv"), folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        python = partial / "bin" / "python"
        for command in (
            [str(uv), "venv", "--quiet", "--python", sys.executable, "--relocatable", str(partial)],
            [
                str(uv),
                "pip",
                "install",
                "--compile-bytecode",
                "--quiet",
                "--python",
                str(python),
                "--no-deps",
                "--require-hashes",
                "-r",
                str(pins),
            ],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{name}: expected its environment, uv told: {done.stderr[-1_000:]}")
        partial.rename(folder)
    return folder / "bin" / "python"
