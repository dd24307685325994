"""How the job's parts come to its workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.part import Part
from beam_jobs.pipeline import in_turn
from beam_jobs.runners import LOCAL

N_PARTS = 13
seen: list[tuple[int, int]] = []


class Seen(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """Notes which worker has which part: in this mode each is a thread."""

    def process(self, part: Part) -> Iterator[Any]:
        seen.append((Part(*part).number, threading.get_ident()))
        yield from ()


def test_two_workers_are_dealt_parts_in_turn() -> None:
    seen.clear()
    options = [*LOCAL, "--direct_num_workers=2", "--direct_running_mode=multi_threading"]
    with beam.Pipeline(options=PipelineOptions(options)) as pipeline:
        in_turn(pipeline, [Part(number, ()) for number in range(N_PARTS)]) | beam.ParDo(Seen())
    workers = [worker for _, worker in sorted(seen)]
    assert len(workers) == N_PARTS
    assert workers[0] != workers[1]
    assert workers == [workers[number % 2] for number in range(N_PARTS)]
