"""What a cluster does to the job that one process never does: a task runs twice, and what is grouped comes in any order.

Flink runs a task again when its TaskManager died, with what the first run has written lying there; and it groups as the
network brings it. Here every step of the job is run twice, the first time for nothing, and every group is shuffled.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import apache_beam as beam
import pytest

from beam_jobs import boilerplate, mixing, paragraphs, part, pipeline
from beam_jobs.past import Past
from beam_jobs.prepare import prepare
from lake.folder import Folder
from lake.recipe import Recipe
from lake.records import Dataset
from tests.documents import document
from tests.preparation import EVERYTHING, MODEL, counts, digests, put, texts

PLAIN = Recipe(name=MODEL)
FOOTER = "\nAll rights reserved by those who keep the servers."


@pytest.mark.parametrize("recipe", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_steps_that_run_twice_on_shuffled_groups_leave_the_same(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "PART_OBJECTS", 1)
    store = Folder(tmp_path)
    first = put(store, [text + FOOTER for text in texts(60)], n_objects=6)
    past = [_past(store, prepare(first, recipe, store.address, "past", []))]
    shared = [
        f"{document(n, 4)}\n\n{document(1, 3)}\n\n{document(n + 100, 4)}" for n in range(500, 504)
    ]  # too few for boilerplate
    drop = put(store, [*texts(40), *(document(n) for n in range(200, 260)), *texts(30), *shared], n_objects=9)
    once = prepare(drop, recipe, store.address, "once", past)

    n_steps = _disturb(monkeypatch, random.Random(1))
    again = prepare(drop, recipe, store.address, "again", past)
    assert n_steps >= 10
    assert again.n_kept > 20
    assert sum(again.rejected.values()) > 30
    assert counts(again) == counts(once)
    assert digests(store, again) == digests(store, once)


def _past(store: Folder, dataset: Dataset) -> Past:
    return Past(dataset.dataset_id, store.address, dataset.prefix)


def _disturb(monkeypatch: pytest.MonkeyPatch, draw: random.Random) -> int:
    """Make every step of the job run twice, with what it is given shuffled anew. Returns how many steps there are."""
    steps = 0
    for module in (pipeline, mixing, boilerplate, paragraphs):
        for kind in _kinds(module):
            monkeypatch.setattr(kind, "process", _twice(kind.process, draw, is_method=True))
            steps += 1
    for module, name in ((pipeline, "_candidates"), (boilerplate, "_counted"), (paragraphs, "_repeated")):
        monkeypatch.setattr(module, name, _twice(getattr(module, name), draw, is_method=False))
        steps += 1
    return steps


def _kinds(module: ModuleType) -> list[Any]:
    """The DoFns that a module defines."""
    found = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, beam.DoFn)]
    return [each for each in found if each.__module__ == module.__name__ and "process" in vars(each)]


def _twice(step: Callable[..., Any], draw: random.Random, *, is_method: bool) -> Callable[..., Any]:
    @wraps(step)
    def disturbed(*arguments: Any) -> Any:
        before, item, after = arguments[:is_method], arguments[is_method], arguments[is_method + 1 :]
        _run(step(*before, _shuffled(item, draw), *after))
        found = step(*before, _shuffled(item, draw), *after)
        return found if found is None or isinstance(found, tuple) else list(found)

    return disturbed


def _run(found: Any) -> None:
    if isinstance(found, Iterable):
        list(found)


def _shuffled(item: Any, draw: random.Random) -> Any:
    """What GroupByKey or CoGroupByKey gives, each group in another order. Other elements are given as they are."""
    if type(item) is not tuple or len(item) != 2:
        return item
    key, told = item
    if isinstance(told, dict):
        return key, {name: _reordered(group, draw) for name, group in told.items()}
    if isinstance(told, Iterable) and not isinstance(told, (tuple, str, bytes)):
        return key, _reordered(told, draw)
    return item


def _reordered(group: Any, draw: random.Random) -> Any:
    found = list(group)
    draw.shuffle(found)
    return found
