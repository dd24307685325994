"""Extracting for tests: one object's documents and dead letters, and the objects themselves."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from beam_jobs.formats import Extracted, extract
from lake.recipe import PrepareRules

RULES = PrepareRules()
GOOD = '{"id": "a", "text": "first"}\n{"id": "b", "text": "second"}\n'


def documents(key: str, content: bytes, rules: PrepareRules = RULES) -> list[Extracted]:
    found = list(extract(key, io.BytesIO(content), rules))
    assert len({each.position for each in found}) == len(found), "positions name one thing each"
    return found


def texts(found: list[Extracted]) -> list[str]:
    return [each.text for each in found if each.reason is None]


def letters(found: list[Extracted]) -> list[tuple[str, str | None]]:
    """`(position, reason)` of the dead letters."""
    return [(each.position, each.reason) for each in found if each.reason is not None]


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def page(body: str, head: str = "") -> str:
    return f"<html><head>{head}<title>t</title></head><body><article><p>{body}</p></article></body></html>"


SENTENCE = "Der Müller mahlt das Korn früh am Morgen, und die Bäckerin übt für das große Fest im Städtchen. "
