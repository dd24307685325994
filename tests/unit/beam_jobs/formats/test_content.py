"""Lines are the same whatever the chunks, and what is looked at is still there to be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.formats.content import Content
from beam_jobs.formats.extracted import Unreadable

CHUNKS = st.lists(st.binary(min_size=1, max_size=20), max_size=8)


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), st.integers(1, 40), st.integers(1, 20))
def test_lines_are_those_of_the_content(lines: list[bytes], chunk_bytes: int, max_line_bytes: int) -> None:
    content = b"".join(line + b"\n" for line in lines)
    chunks = (content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes))
    found = list(Content(chunks).lines(max_line_bytes))
    assert found == [line if len(line) <= max_line_bytes else None for line in lines]


def test_the_last_line_needs_no_end() -> None:
    assert list(Content([b"one\ntw", b"o"]).lines(10)) == [b"one", b"two"]
    assert list(Content([b"one\nlonger", b" than that"]).lines(5)) == [b"one", None]


@given(CHUNKS, st.integers(0, 50), st.integers(1, 9))
def test_what_is_looked_at_is_read_all_the_same(chunks: list[bytes], n_head: int, n_bytes: int) -> None:
    whole = b"".join(chunks)
    content = Content(chunks)
    assert content.head(n_head) == whole[:n_head]
    assert content.head(3) == whole[:3]
    first = content.read(n_bytes)
    assert first + b"".join(content.chunks()) == whole
    content = Content(chunks)
    content.head(n_head)
    held = []
    while chunk := content.read(n_bytes):
        held.append(chunk)
    assert b"".join(held) == whole
    with Content(chunks).spooled() as file:
        assert file.read() == whole


def test_what_cannot_be_unpacked_is_told_when_it_is_read() -> None:
    def chunks():  # type: ignore[no-untyped-def]
        yield b"ab"
        raise Unreadable("bad_gzip")

    content = Content(chunks())
    assert content.head(10) == b"ab"
    assert content.read(10) == b"ab"
    with pytest.raises(Unreadable, match="bad_gzip"):
        content.read(10)


def test_what_must_be_read_whole_has_a_limit() -> None:
    assert Content([b"abc", b"de"]).whole(5) == b"abcde"
    with pytest.raises(Unreadable, match="too_large"):
        Content([b"abc", b"def"]).whole(5)
    with pytest.raises(Unreadable, match="too_large"), Content([b"abc", b"def"]).spooled(5):
        pass
