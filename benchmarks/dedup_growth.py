"""How finding candidates grows: 10⁵, 10⁶ and 10⁷ synthetic documents, fitted, and carried on to 10⁸ on paper.

Two questions: a drop of 10,000 documents against an index of that many, and that many documents with each other. Each
size runs in a process of its own.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks._environment import environment
from benchmarks.report import Figure, told

SIZES = (10**5, 10**6, 10**7)
PLANNED = 10**8
DROP = 10_000
ROOT = Path(__file__).parent.parent


def run() -> list[Figure]:
    figures: list[Figure] = []
    for name, history, new in (
        (f"a drop of {DROP} against an index", SIZES, [DROP] * len(SIZES)),
        ("all with each other", [0] * len(SIZES), SIZES),
    ):
        measured = [_measured(n_history, n_new) for n_history, n_new in zip(history, new, strict=True)]
        for size, each in zip(SIZES, measured, strict=True):
            n = f"{size:.0e}"
            figures += [
                told(f"{name}, {n}, CPU", each["cpu_s"], "s", "one process; candidates alone"),
                told(f"{name}, {n}, memory", each["bytes"] / 1e6, "MB", "largest, over what the empty process has"),
            ]
        for what, unit, values in (
            ("CPU", "s", [each["cpu_s"] for each in measured]),
            ("memory", "MB", [each["bytes"] / 1e6 for each in measured]),
        ):
            exponent, factor = power_law(SIZES, values)
            planned = factor * PLANNED**exponent
            how = f"{what} ∝ n^{exponent:.2f}, least squares on logarithms of the {len(SIZES)} sizes"
            figures.append(told(f"{name}, {PLANNED:.0e}, {what} on paper", planned, unit, how))
    return figures


def power_law(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """`(exponent, factor)` of the least-squares line through the logarithms: value ≈ factor · size**exponent."""
    exponent, intercept = np.polyfit(np.log(sizes), np.log(values), 1)
    return float(exponent), math.exp(intercept)


def _measured(n_history: int, n_new: int) -> dict[str, float]:
    print(f"{n_new} documents against {n_history} …", flush=True)
    command = [sys.executable, "-m", "benchmarks._growth_side", str(n_history), str(n_new)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), check=False)
    if done.returncode:
        raise RuntimeError(f"{n_history} and {n_new} documents: {done.stderr[-2_000:]}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured
