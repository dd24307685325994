"""Memory does not grow with the object: 100 MB that are never stored, and a line of 2 GB."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable

import pytest

from beam_jobs.formats import Extracted, extract
from lake.recipe import PrepareRules
from tests.documents import document
from tests.memory import peak_bytes, repeated, reset_peak

N_BYTES, MAX_ADDED_BYTES = 100_000_000, 60_000_000
RULES = PrepareRules(max_object_bytes=10_000_000_000)
TEXTS = [document(number, n_sentences=12) for number in range(100)]
CHUNKS = {
    "jsonl": (b"", "".join(json.dumps({"text": text}) + "\n" for text in TEXTS), b""),
    "json": (b'[{"text": "first"}', "".join(", " + json.dumps({"text": text}) for text in TEXTS), b"]"),
    "csv": (b"n,text\n", "".join(f'1,"{text}"\n' for text in TEXTS), b""),
    "txt": (b"", "\n\n".join(TEXTS) + "\n\n", b""),
    "xml": (b"<?xml version='1.0'?><r>", "".join(f"<p>{text}</p>" for text in TEXTS), b"</r>"),
}


def added(found: Iterable[Extracted]) -> tuple[int, int, list[str]]:
    """`(documents, bytes of memory at the most, reasons)` while everything is read and nothing kept."""
    gc.collect()
    before, n_documents, reasons = reset_peak(), 0, []
    for each in found:
        n_documents += each.reason is None
        if each.reason:
            reasons.append(each.reason)
    return n_documents, peak_bytes() - before, reasons


@pytest.mark.parametrize("format_", CHUNKS)
def test_a_large_object_takes_no_more_memory_than_a_small_one(format_: str) -> None:
    before, chunk, after = CHUNKS[format_]
    n_documents, added_bytes, reasons = added(
        extract(f"a.{format_}", repeated(before, chunk.encode(), after, N_BYTES), RULES)
    )
    assert reasons == []
    assert n_documents > N_BYTES / 25_000
    assert added_bytes < MAX_ADDED_BYTES


@pytest.mark.parametrize("format_", ["jsonl", "csv", "json", "html", "data"])
def test_a_line_of_two_gigabytes(format_: str) -> None:
    before = {"csv": b'id,text\na,"', "json": b'[{"text": "', "html": b"<html>"}.get(format_, b'{"text": "')
    stream = repeated(before, b"x" * 250_000, b'"}\n{"text": "second"}\n', 2_000_000_000)
    n_documents, added_bytes, reasons = added(extract(f"a.{format_}", stream, RULES))
    assert reasons in (["record_too_large"], ["too_large"])
    assert n_documents == (format_ in ("jsonl", "data"))
    assert added_bytes < MAX_ADDED_BYTES


def test_a_text_without_a_space_is_cut_all_the_same() -> None:
    n_documents, added_bytes, _ = added(extract("a.txt", repeated(b"", b"x" * 250_000, b"", N_BYTES), RULES))
    assert n_documents == N_BYTES // RULES.max_characters
    assert added_bytes < MAX_ADDED_BYTES
