"""What has been erased and must not come back, and which versions have seen it. Pure rules."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from lake.records import Record


class Tombstones(Record):
    """Erased documents of one model: their ids, and the exact hashes of their words.

    The hash keeps the same words from coming back under another key or from another source. It is not text, and
    nothing can be read from it.
    """

    documents: frozenset[str] = frozenset()
    texts: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.documents or self.texts)


NOTHING_ERASED = Tombstones()


def digest(ids: Iterable[str]) -> str:
    """16 hex digits that name a set of ids."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


def chain_to(dataset_id: str, replaced_by: Mapping[str, str]) -> frozenset[str]:
    """A dataset and all earlier ones that it has come to replace."""
    earlier = {new: old for old, new in replaced_by.items()}
    chain = [dataset_id]
    while chain[-1] in earlier:
        chain.append(earlier[chain[-1]])
    return frozenset(chain)


def newest_of(dataset_id: str, replaced_by: Mapping[str, str]) -> str:
    """The dataset that stands for this one now."""
    while dataset_id in replaced_by:
        dataset_id = replaced_by[dataset_id]
    return dataset_id


class Descended(Protocol):
    """What a version's descent is told by."""

    @property
    def version(self) -> str: ...
    @property
    def parent(self) -> str | None: ...
    @property
    def dataset_ids(self) -> tuple[str, ...]: ...


def who_saw(versions: Sequence[Descended], dataset_ids: Collection[str]) -> set[str]:
    """Versions trained on any of the datasets, or descended from one that was. `versions` are in order of age.

    A child starts from its parent's weights or sees again what the parent has seen: either way it has seen the same.
    """
    saw: set[str] = set()
    for version in versions:
        if version.parent in saw or not frozenset(dataset_ids).isdisjoint(version.dataset_ids):
            saw.add(version.version)
    return saw
