"""Unpacking as a stream: whatever the chunks, the same content; never more than allowed; damage told by its name."""

from __future__ import annotations

import bz2
import gzip
import io
import random
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.formats.extracted import BudgetSpent, Unreadable
from beam_jobs.formats.inflate import CHUNK_BYTES, Budget, inflated
from tests.extraction import GOOD, documents, letters, texts


def _zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": _zstd, "bz2": bz2.compress}
EXTENSIONS = {"gzip": "gz", "zstd": "zst", "bz2": "bz2"}
CODECS = st.sampled_from(sorted(PACK))
NOISE = random.Random(0).randbytes(100_000)


def cut(content: bytes, n_bytes: int) -> Iterator[bytes]:
    return (content[at : at + n_bytes] for at in range(0, len(content), n_bytes))


def unpacked(codec: str, packed: Iterator[bytes], max_bytes: int = 10_000_000) -> bytes:
    return b"".join(inflated(codec, packed, Budget(max_bytes)))


@given(CODECS, st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(1, 50))
def test_members_come_back_whole_and_in_order(codec: str, members: list[bytes], n_bytes: int) -> None:
    packed = b"".join(PACK[codec](member) for member in members) + b"\0" * 20
    assert unpacked(codec, cut(packed, n_bytes)) == b"".join(members)


def test_a_frame_that_is_to_be_skipped() -> None:
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"
    packed = zstandard.compress(b"one ") + skipped + zstandard.compress(b"two")
    assert unpacked("zstd", cut(packed, 5)) == b"one two"
    assert texts(documents("a.txt.zst", skipped + packed)) == ["one two"]


@pytest.mark.parametrize("codec", PACK)
def test_no_chunk_is_large(codec: str) -> None:
    sizes = [len(chunk) for chunk in inflated(codec, iter([PACK[codec](bytes(50_000_000))]), Budget(10**9))]
    assert sum(sizes) == 50_000_000
    # 1 KiB of zstd holds up to 256 blocks of 128 KiB.
    assert max(sizes) <= (1 << 25 if codec == "zstd" else CHUNK_BYTES)


@pytest.mark.parametrize("codec", PACK)
def test_more_than_allowed_is_not_unpacked(codec: str) -> None:
    chunks = inflated(codec, iter([PACK[codec](bytes(100_000_000))]), Budget(60_000_000))
    with pytest.raises(BudgetSpent):
        list(chunks)
    assert unpacked(codec, iter([PACK[codec](NOISE)]), len(NOISE)) == NOISE


def test_a_zstd_window_larger_than_memory_is_refused() -> None:
    """A frame header that asks for a window of 2 GiB (RFC 8878, 3.1.1.1.2)."""
    frame = b"\x28\xb5\x2f\xfd" + bytes([0b0000_0000, (31 - 10) << 3]) + b"\x01\x00\x00"
    with pytest.raises(Unreadable, match="bad_zstd"):
        unpacked("zstd", iter([frame]))


@pytest.mark.parametrize("codec", PACK)
@pytest.mark.parametrize("cut_bytes", [1, 5, 30_000])
def test_what_comes_before_the_cut_is_kept(codec: str, cut_bytes: int) -> None:
    held = []
    with pytest.raises(Unreadable) as caught:
        for chunk in inflated(codec, cut(PACK[codec](NOISE)[:-cut_bytes], 1_000), Budget(10**9)):
            held.append(chunk)
    whole = b"".join(held)
    assert NOISE.startswith(whole)
    assert (caught.value.reason, caught.value.position) == (f"truncated_{codec}", f"byte:{len(whole)}")
    if codec == "gzip":  # the others give whole blocks only
        assert len(whole) >= len(NOISE) - cut_bytes


@pytest.mark.parametrize("codec", PACK)
def test_damage_is_told(codec: str) -> None:
    packed = bytearray(PACK[codec](NOISE))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(Unreadable, match=f"bad_{codec}"):
        unpacked(codec, iter([bytes(packed), b"\0" * 100]))


@pytest.mark.parametrize("codec", PACK)
def test_garbage_after_the_end(codec: str) -> None:
    found = documents(f"a.jsonl.{EXTENSIONS[codec]}", PACK[codec](GOOD.encode()) + b"garbage that is long enough")
    assert texts(found) == ["first", "second"]
    assert letters(found) == [("object", f"bad_{codec}")]


@pytest.mark.parametrize("codec", PACK)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.{}", "A.JSONL.{}"])
def test_packing_is_seen_in_the_content(codec: str, name: str) -> None:
    content = PACK[codec](GOOD.encode())
    assert texts(documents(name.format(EXTENSIONS[codec]), content)) == ["first", "second"]


@given(CODECS, st.integers(0, 120), st.binary(max_size=8))
def test_nothing_else_is_raised(codec: str, at: int, damage: bytes) -> None:
    packed = PACK[codec](GOOD.encode())
    try:
        unpacked(codec, iter([packed[:at] + damage + packed[at + len(damage) :]]))
    except Unreadable as error:
        assert error.reason in (f"truncated_{codec}", f"bad_{codec}")


def test_very_many_empty_members_take_no_quadratic_time() -> None:
    assert unpacked("gzip", io.BytesIO(gzip.compress(b"") * 20_000).__iter__()) == b""
