"""Preparation by two worker processes against one, in wall time, which only a quiet machine tells."""

from __future__ import annotations

from benchmarks._prepare_side import dropped, measured
from benchmarks.report import Figure, at_least, told

N_BYTES = 250_000_000


def run() -> list[Figure]:
    with dropped(N_BYTES) as bucket:
        one, two = measured("job", bucket), measured("workers", bucket)
    if one.n_documents != two.n_documents:
        raise AssertionError(f"one process read {one.n_documents} documents, two workers {two.n_documents}")
    how = f"{two.n_documents} documents, {N_BYTES / 1e6:.0f} MB of text; one process against two workers beside it"
    return [
        at_least("wall, one worker over two", one.wall_s / two.wall_s, 1.6, "×", how),
        told("wall, one worker", one.wall_s, "s", "in the process itself"),
        told("wall, two workers", two.wall_s, "s", "their start and imports included"),
        told("text, two workers", N_BYTES / 1e6 / two.wall_s, "MB/s", "by wall"),
    ]
