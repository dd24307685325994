"""Prediction logs for tests, in the bucket as a replica writes them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from lake.bucket import Bucket
from lake.layout import log_key
from lake.records import PredictionLog

# Later than any champion of a test, whose traffic counts from its making on.
START = datetime(2090, 5, 1, 12, tzinfo=UTC)


def prediction(number: int, prompt: str = "How do I sort a list?", **changes: Any) -> PredictionLog:
    """An answered request of `docs` `v1`, `number` seconds after START."""
    told: dict[str, Any] = {
        "request_id": f"request-{number:05d}",
        "model": "docs",
        "version": "v1",
        "at": START + timedelta(seconds=number),
        "prompt": prompt,
        "response": "Call sorted().",
        "n_prompt_tokens": 7,
        "n_response_tokens": 4,
        "latency_ms": 50.0 + number % 10,
        "status": 200,
        "shadow": False,
    }
    return PredictionLog.model_validate(told | changes)


def write_log(bucket: Bucket, rows: Sequence[PredictionLog], writer: str = "replica-a") -> str:
    """One log object with these rows, named by the newest of them. Returns its key."""
    newest = max(row.at for row in rows)
    key = log_key(rows[0].model, newest, writer, len(rows))
    bucket.put_table(key, pa.Table.from_pylist([row.model_dump() for row in rows]))
    return key


def questions(topic: str, n: int, first: int = 0) -> list[str]:
    """`n` different short prompts about `python` or `cooking`, from number `first` on (144 are to be had)."""
    verbs, things, ends = _WORDS[topic]
    every = [f"{ask} {verb} {thing} {end}?" for ask in _ASKS for thing in things for verb in verbs for end in ends]
    # A stride that has no factor in common with their number: neighbours differ in more than the last word.
    return [every[(first + number) * 31 % len(every)] for number in range(n)]


_ASKS = ("How do I", "What is the best way to", "Can you show me how to", "Why would I")
_WORDS = {
    "python": (
        ("sort", "copy", "test"),
        ("a list of tuples", "a nested dictionary", "a decorated function", "a pandas frame"),
        ("in Python", "without a loop", "with type hints"),
    ),
    "cooking": (
        ("bake", "season", "store"),
        ("a loaf of rye bread", "a roast chicken", "fresh tomato sauce", "a lemon cake"),
        ("in a small oven", "for six guests", "the day before"),
    ),
}
