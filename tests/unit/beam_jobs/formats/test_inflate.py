"""Bounded reading: whatever the chunks, the same lines; never more than allowed."""

from __future__ import annotations

import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs import inflate
from beam_jobs.inflate import Inflated, TooLarge, TruncatedGzip


def opened(content: bytes, compressed: bool = False, max_bytes: int = 1_000_000) -> Inflated:
    stream = io.BytesIO(content)
    return Inflated(stream, stream.read(4), compressed=compressed, max_bytes=max_bytes)


@given(st.binary(max_size=200), st.integers(1, 50), st.booleans())
def test_content_comes_back_whole(content: bytes, chunk_bytes: int, compressed: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inflate, "_CHUNK_BYTES", chunk_bytes)
        packed = gzip.compress(content) if compressed else content
        assert opened(packed, compressed).read() == content


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), st.integers(1, 40), st.integers(1, 20))
def test_lines_are_those_of_the_content(lines: list[bytes], chunk_bytes: int, max_line_bytes: int) -> None:
    content = b"".join(line + b"\n" for line in lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inflate, "_CHUNK_BYTES", chunk_bytes)
        found = list(opened(content).lines(max_line_bytes))
    assert found == [line if len(line) <= max_line_bytes else None for line in lines]


def test_the_last_line_needs_no_end() -> None:
    assert list(opened(b"one\ntwo").lines(10)) == [b"one", b"two"]
    assert list(opened(b"one\nlonger than that").lines(5)) == [b"one", None]


def test_more_than_allowed_is_not_unpacked() -> None:
    with pytest.raises(TooLarge):
        opened(gzip.compress(b"x" * 10_000_000), compressed=True, max_bytes=1_000_000).read()
    assert opened(gzip.compress(b"x" * 1_000_000), compressed=True, max_bytes=1_000_000).read() == b"x" * 1_000_000


def test_a_cut_is_told_with_its_place() -> None:
    with pytest.raises(TruncatedGzip) as caught:
        opened(gzip.compress(b"0123456789", compresslevel=0)[:-4], compressed=True).read()
    assert caught.value.n_bytes == 10
