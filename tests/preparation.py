"""Input and outcome of whole preparation jobs that run in different ways and have to leave the same."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from lake.layout import inbox_prefix
from lake.ledger.arrivals import drop_id_of
from lake.recipe import parse_recipe
from lake.records import Dataset, Drop
from lake.store import Store
from tests.documents import document, edited

MODEL = "m"
# Every step that a recipe can ask for.
EVERYTHING = parse_recipe(
    """
name: m
prepare:
  mix:
    domains: {servers: {keywords: [server, client, socket], min_matches: 2}}
    quotas: {servers: 0.4}
  quality: {paragraphs: {min_characters: 20}, boilerplate: {min_documents: 5}}
  perplexity: {drop: [tail]}
""",
    "m.yaml",
)


def texts(n: int) -> list[str]:
    """`n` different documents, an exact copy of every tenth one, and an edited copy of every tenth one after it."""
    return [
        *(document(number) for number in range(n)),
        *(document(number).upper() for number in range(0, n, 10)),
        *(edited(document(number), seed=number) for number in range(5, n, 10)),
    ]


def put(store: Store, documents: Sequence[str], n_objects: int) -> Drop:
    """The documents dealt to objects in the inbox, as a drop."""
    for number in range(n_objects):
        body = "".join(json.dumps({"text": text}) + "\n" for text in documents[number::n_objects])
        store.put(f"{inbox_prefix(MODEL)}o{number:03d}.jsonl", body.encode())
    refs = tuple(store.list(inbox_prefix(MODEL)))
    return Drop(drop_id=drop_id_of(refs), model=MODEL, objects=refs, closed_at=datetime.now(UTC))


def digests(store: Store, dataset: Dataset) -> dict[str, tuple[int, str]]:
    """Every file that the job has left: its size and sha256 by its key in the dataset."""
    return {key.removeprefix(dataset.prefix): store.digest(key) for key in list(store.keys(dataset.prefix))}


def counts(dataset: Dataset) -> Dataset:
    """All that a dataset says of itself but its name and place."""
    return dataset.model_copy(update={"dataset_id": "", "prefix": ""})


def await_some(store: Store, prefix: str, is_over: Callable[[], bool], within_s: float = 120.0) -> list[str]:
    """Keys below the prefix as soon as there are any: the job is under way. Raises when it ends, or takes too long."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = list(store.keys(prefix))
        if found:
            return found
        if is_over():
            break
        time.sleep(0.02)
    raise AssertionError(f"nothing was seen below {prefix}")
