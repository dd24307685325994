"""Preparation as it grows: two worker processes against one, and memory from 100 MB of input to 1 GB."""

from __future__ import annotations

from benchmarks._documentation import n_bytes_distinct
from benchmarks._prepare_side import dropped, measured
from benchmarks.report import Figure, at_least, at_most, told

WORKERS_BYTES = 250_000_000
MEMORY_BYTES = 100_000_000, 1_000_000_000


def run() -> list[Figure]:
    return [*workers(WORKERS_BYTES), *memory(*MEMORY_BYTES)]


def workers(n_bytes: int) -> list[Figure]:
    """Wall time, which only a quiet machine tells."""
    with dropped(n_bytes) as bucket:
        one, two = measured("job", bucket), measured("workers", bucket)
    how = f"{two.n_documents} documents, {n_bytes / 1e6:.0f} MB of text; one process against two workers beside it"
    return [
        at_least("wall, one worker over two", one.wall_s / two.wall_s, 1.6, "×", how),
        told("wall, one worker", one.wall_s, "s", "in the process itself"),
        told("wall, two workers", two.wall_s, "s", "their start and imports included"),
        told("text, two workers", n_bytes / 1e6 / two.wall_s, "MB/s", "by wall"),
    ]


def memory(small: int, large: int) -> list[Figure]:
    """The largest memory of the one process that does everything, store excepted."""
    peaks = []
    for n_bytes in (small, large):
        with dropped(n_bytes) as bucket:
            peaks.append(measured("job", bucket).peak_bytes)
    distinct = f"the first {min(large, n_bytes_distinct()) / 1e6:.0f} MB real, the rest copies with a third of the words replaced"
    names = [f"memory at {n_bytes / 1e6:.0f} MB" for n_bytes in (small, large)]
    return [
        at_most("memory, large over small", peaks[1] / peaks[0], 1.2, "×", f"{large / 1e6:.0f} against {small / 1e6:.0f} MB of text; {distinct}"),
        *(told(name, peak / 1e6, "MB", "largest resident set of a process that does all") for name, peak in zip(names, peaks, strict=True)),
    ]  # fmt: skip
