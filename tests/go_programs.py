"""Servers written in Go that tests run: built once, into the user's cache, from what a folder of `tests/` pins."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


@functools.cache
def built(name: str, label: str, package: str, within_s: float) -> Path | str:
    """Path of the program, or why there is none. `tests/<name>/` pins the versions and checksums of `package`."""
    pins = ROOT / "tests" / name
    version = hashlib.sha256((pins / "go.sum").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidemill-tests"
    program = cache / f"{name}-{version}"
    if program.exists():
        return program
    if shutil.which("go") is None:
        return f"{label} cannot be built: no 'go' on the PATH"
    cache.mkdir(parents=True, exist_ok=True)
    partial = cache / f"{program.name}.{os.getpid()}"
    command = ["go", "build", "-mod=readonly", "-buildvcs=false", "-o", str(partial), package]
    try:
        subprocess.run(command, cwd=pins, check=True, capture_output=True, text=True, timeout=within_s)
        partial.replace(program)  # two test runs may build at once
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return f"{label} cannot be built: {told[-1] if told else type(error).__name__}"
    return program
