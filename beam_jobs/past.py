"""What was prepared before, by its place in a store: a dataset, or an index compacted of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lake.store import Address


class Past(NamedTuple):
    """What is below `prefix` of a store; `identity` is the dataset's or the index's."""

    identity: str
    address: Address
    prefix: str

    def keys(self, folder: str) -> list[str]:
        return list(self.address.open().keys(f"{self.prefix}{folder}/"))


class IndexFile(NamedTuple):
    """One file of a stored index, with that of its shingles."""

    address: Address
    signatures: str
    shingles: str


def index_files(history: Sequence[Past]) -> Iterator[IndexFile]:
    """The files of stored indexes, in order."""
    for past in history:
        for key in past.keys("signatures"):
            yield IndexFile(past.address, key, f"{past.prefix}shingles/{key.rsplit('/', 1)[-1]}")
