"""Compact an index: the many small files that drops leave become few large ones, row for row in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from beam_jobs.learn import frequencies_of
from beam_jobs.mix.distinctiveness import DocumentFrequencies
from beam_jobs.part import require_same_index
from beam_jobs.past import Past, index_files
from lake.store import Store

# What one file holds, and so what a worker needs at a time: some 5 MB of signatures, 60 MB of shingles.
FILE_DOCUMENTS = 1 << 16
FILE_PARAGRAPHS = 1 << 20


def compact(store: Store, history: Sequence[Past], prefix: str) -> int:
    """Write the indexes of `history` below `prefix`: `signatures/` and `shingles/`, and where the history has them
    `paragraphs/` and `frequencies/`. Returns the number of documents.

    One file at a time: memory does not grow with the history. Raises TidemillError when an index does not fit.
    """
    n_documents = 0
    for number, (signatures, shingles) in enumerate(_merged(history)):
        for folder, table in (("signatures", signatures), ("shingles", shingles)):
            store.put_table(f"{prefix}{folder}/{number:06d}.parquet", table)
        n_documents += len(signatures)
    for number, paragraphs in enumerate(_paragraphs(history)):
        store.put_table(f"{prefix}paragraphs/{number:06d}.parquet", paragraphs)
    if any(past.keys("frequencies") for past in history):
        total = sum(frequencies_of(history), start=DocumentFrequencies.none())
        store.put_table(f"{prefix}frequencies/000000.parquet", total.to_table())
    return n_documents


def _merged(history: Sequence[Past]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Signatures and shingles of FILE_DOCUMENTS or more at a time."""
    waiting: list[tuple[pa.Table, pa.Table]] = []
    for file in index_files(history):
        store = file.address.open()
        signatures = store.get_table(file.signatures)
        require_same_index(signatures, store.uri(file.signatures))
        waiting.append((signatures, store.get_table(file.shingles)))
        if sum(len(each) for each, _ in waiting) >= FILE_DOCUMENTS:
            yield _together(waiting)
            waiting.clear()
    if waiting:
        yield _together(waiting)


def _paragraphs(history: Sequence[Past]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for past in history:
        store = past.address.open()
        for key in past.keys("paragraphs"):
            waiting.append(store.get_table(key, ["hash"]))
            if sum(map(len, waiting)) >= FILE_PARAGRAPHS:
                yield pa.concat_tables(waiting)
                waiting.clear()
    if waiting:
        yield pa.concat_tables(waiting)


def _together(tables: Sequence[tuple[pa.Table, pa.Table]]) -> tuple[pa.Table, pa.Table]:
    signatures, shingles = zip(*tables, strict=True)
    return pa.concat_tables(signatures), pa.concat_tables(shingles)
