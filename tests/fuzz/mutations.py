"""An input for each seed: a valid file damaged in one of many ways, or one made to break a parser."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import zipfile
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import zstandard

from tests.fuzz.bombs import BOMBS
from tests.fuzz.samples import samples, zipped

_TOKENS = [
    *(b"\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80", b'"', b"\n", b"\r", b"{", b"[", b"]" * 50, b"," * 200),
    *(b"-1", b"1e999", b"9" * 400, b"\xef\xbb\xbf", b"\xff\xfe", b"\\ud800", b"<![CDATA[", b"<!--", b"]]>", b"&x;&x;"),
    *(
        b"<table>" * 30,
        b"<div>" * 300,
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"\x1f\x8b\x08",
        b"endobj",
        b"stream",
        b"/Kids [2 0 R]",
    ),
    *(b"/Count 2147483647", b"Content-Length: 99999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"../../x", b"\xc3"),
]
_EXTENSIONS = [
    *("jsonl", "json", "csv", "tsv", "txt", "md", "html", "xml", "pdf", "docx", "epub", "warc", "zip", "gz", "parquet"),
    *("bin", ""),
]


class Case(NamedTuple):
    """`family` is what it was before it was damaged."""

    family: str
    name: str
    content: bytes


@cache
def _samples() -> dict[str, bytes]:
    return samples()


def case(seed: int) -> Case:
    """The same input for the same seed. Every family comes as often; one in twenty is made to break."""
    draw = random.Random(seed)
    if seed % 20 == 0:
        name = sorted(BOMBS)[seed // 20 % len(BOMBS)]
        made = BOMBS[name](draw)
        return Case("made to break", made[0], made[1])
    family = sorted(_samples())[seed % len(_samples())]
    name, content = family, _samples()[family]
    if draw.random() < 0.4:
        content = _within(content, draw)
    else:
        for _ in range(draw.choice([1, 1, 2, 5])):
            content = draw.choice(_MUTATIONS)(content, draw)
    if draw.random() < 0.15:
        name = "a." + draw.choice(_EXTENSIONS) if draw.random() < 0.9 else "a"
    if draw.random() < 0.15:
        name, content = _packed(name, content, draw)
        if draw.random() < 0.3:
            content = draw.choice(_MUTATIONS)(content, draw)
    return Case(family, name, content)


def _within(content: bytes, draw: random.Random) -> bytes:
    """Damage what is packed and pack it again, as checksums keep most other damage away from the parsers."""
    damage = draw.choice(_MUTATIONS)
    if content.startswith(b"\x1f\x8b"):
        return gzip.compress(damage(gzip.decompress(content), draw), mtime=0)
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        for name in draw.sample(sorted(files), min(len(files), draw.choice([1, 1, 3]))):
            files[name] = damage(files[name], draw)
        return zipped(files)
    return damage(content, draw)


def _packed(name: str, content: bytes, draw: random.Random) -> tuple[str, bytes]:
    kind = draw.choice(["gz", "zst", "bz2", "zip"])
    pack: dict[str, Callable[[bytes], bytes]] = {
        "gz": lambda plain: gzip.compress(plain, mtime=0),
        "zst": zstandard.compress,
        "bz2": bz2.compress,
        "zip": lambda plain: zipped({name: plain}),
    }
    return f"{name}.{kind}", pack[kind](content)


def _flip(content: bytes, draw: random.Random) -> bytes:
    out = bytearray(content)
    for _ in range(draw.choice([1, 3, 20])):
        if out:
            out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    return bytes(out)


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _behead(content: bytes, draw: random.Random) -> bytes:
    return content[draw.randrange(min(len(content), 200) + 1) :]


def _drop(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + content[start + draw.choice([1, 4, 100, 1_000]) :]


def _repeat(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    piece = content[start : start + draw.choice([4, 50, 500])]
    return content[:start] + piece * draw.choice([2, 10, 1_000]) + content[start:]


def _insert(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + draw.choice(_TOKENS) + content[start:]


def _splice(content: bytes, draw: random.Random) -> bytes:
    other = _samples()[draw.choice(sorted(_samples()))]
    return content[: draw.randrange(len(content) + 1)] + other[draw.randrange(len(other)) :]


def _noise(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    n_bytes = draw.choice([4, 64, 1_000])
    return content[:start] + draw.randbytes(n_bytes) + content[start + n_bytes :]


def _digits(content: bytes, draw: random.Random) -> bytes:
    """Replace a number as it is written by an extreme one."""
    places = [at for at in range(len(content)) if content[at : at + 1].isdigit()]
    if not places:
        return content
    at = draw.choice(places)
    return content[:at] + draw.choice([b"0", b"-1", b"99999999", b"4294967296"]) + content[at + 1 :]


_MUTATIONS = [_flip, _cut, _behead, _drop, _repeat, _insert, _splice, _noise, _digits]
