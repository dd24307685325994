"""Reads seeds, a line each, extracts the input of each, and tells what came of it. Run as a process of its own.

For every seed a line `start` when the input is made, and a line with an Outcome when it is read.
"""

from __future__ import annotations

import io
import json
import re
import resource
import sys
import time
from collections import Counter
from typing import NamedTuple

from beam_jobs.formats import extract
from lake.recipe import PrepareRules
from lake.recipe.formats import Formats
from tests.fuzz.mutations import case
from tests.memory import peak_bytes, reset_peak

MAX_ADDRESS_BYTES = 6_000_000_000  # a stop for what would take the machine down; the limit of an input is on its memory
RULES = (
    PrepareRules(),
    PrepareRules(max_object_bytes=20_000_000, formats=Formats(xml_record="item", text="{text}{body}")),
)


class Outcome(NamedTuple):
    """`wrong` says what an input may not do; `added_bytes` is what the process grew by at the most."""

    seed: int
    family: str
    n_documents: int
    reasons: dict[str, int]
    cpu_s: float
    added_bytes: int
    wrong: str | None


def run(seed: int) -> Outcome:
    made = case(seed)
    sys.stdout.write("start\n")
    sys.stdout.flush()
    before, started = reset_peak(), time.process_time()
    n_documents, reasons, wrong = 0, Counter[str](), None
    positions = set[str]()
    columns = Counter[str]()
    try:
        for found in extract(f"in/{made.name}", io.BytesIO(made.content), RULES[seed % 7 == 0], columns):
            wrong = wrong or _wrong(found.position, found.text, found.reason, found.detail, found.given_id, positions)
            n_documents += found.reason is None
            if found.reason is not None:
                reasons[found.reason] += 1
    except BaseException as error:
        wrong = f"raised {type(error).__name__}: {str(error)[:200]}"
    if not n_documents and not reasons:
        wrong = wrong or "neither a document nor a dead letter"
    if len(columns) > 1_001:
        wrong = wrong or f"{len(columns)} columns counted"
    return Outcome(
        seed, made.family, n_documents, dict(reasons), time.process_time() - started, peak_bytes() - before, wrong
    )


def _wrong(
    position: str, text: str, reason: str | None, detail: str, given_id: str | None, positions: set[str]
) -> str | None:
    if position in positions:
        return f"position {position} comes twice"
    positions.add(position)
    if reason is None and (not text or len(text) > RULES[0].max_characters):
        return f"a document of {len(text)} characters"
    if reason is not None and (text or not re.fullmatch(r"[a-z0-9_]+", reason)):
        return f"reason {reason!r} with {len(text)} characters"
    for told in (position, detail, given_id or ""):
        if len(told) > 500 or "\n" in told:
            return f"{len(told)} characters told in {position[:50]!r}"
        told.encode()
    return None


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_BYTES, MAX_ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(int(line))._asdict()) + "\n")
        sys.stdout.flush()
