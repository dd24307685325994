"""What a step has freed does not stay with its process."""

from __future__ import annotations

import platform
from pathlib import Path

import pyarrow as pa
import pytest

from beam_jobs.memory import release


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked for what it keeps")
def test_what_lies_between_pieces_that_are_in_use_is_given_back() -> None:
    pieces = [bytes(4_000) for _ in range(25_000)]
    kept = pieces[::50]  # all over the heap, so that its end cannot just be cut off
    del pieces
    before = _resident_bytes()
    release()
    assert before - _resident_bytes() > 50_000_000
    assert len(kept) == 500


def test_tables_of_before_stay_readable() -> None:
    numbers = pa.array(range(100_000))
    release()
    assert numbers.to_pylist() == list(range(100_000))
    assert pa.array(range(10)).to_pylist() == list(range(10))


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096
