"""Memory of preparation as the input grows from 100 MB of text to 1 GB: it should not."""

from __future__ import annotations

from benchmarks._documentation import n_bytes_distinct
from benchmarks._prepare_side import dropped, measured
from benchmarks.report import Figure, at_most, told

SMALL_BYTES, LARGE_BYTES = 100_000_000, 1_000_000_000


def run() -> list[Figure]:
    peaks = []
    for n_bytes in (SMALL_BYTES, LARGE_BYTES):
        with dropped(n_bytes) as bucket:
            peaks.append(measured("job", bucket).peak_bytes)
    small, large = peaks
    how = (
        f"{LARGE_BYTES / 1e6:.0f} against {SMALL_BYTES / 1e6:.0f} MB of text; the first {n_bytes_distinct() / 1e6:.0f} MB"
        " are real, the rest copies of it with a third of the words replaced"
    )
    told_how = "largest resident set of the one process that does everything, the store excepted"
    return [
        at_most("memory, large over small", large / small, 1.2, "×", how),
        told("memory, small", small / 1e6, "MB", told_how),
        told("memory, large", large / 1e6, "MB", told_how),
    ]
