"""Inputs made to take memory, time or the parser down, each of bounded size, with chance in its measures."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.fuzz.samples import docx, epub, pdf, warc, zipped

Made = tuple[str, bytes]


def _size(draw: random.Random) -> int:
    return draw.choice([10_000, 300_000, 3_000_000])


def _gzip(draw: random.Random) -> Made:
    return draw.choice(["a.jsonl.gz", "a.txt.gz", "a.html.gz", "a.csv.gz"]), gzip.compress(bytes(20 * _size(draw)))


def _zstd(draw: random.Random) -> Made:
    return "a.jsonl.zst", zstandard.compress(b" " * (20 * _size(draw)))


def _bz2(draw: random.Random) -> Made:
    return "a.txt.bz2", bz2.compress(b"a" * (10 * _size(draw)))


def _members(draw: random.Random) -> Made:
    return "a.txt.gz", gzip.compress(b"", mtime=0) * (_size(draw) // 30)


def _zip(draw: random.Random) -> Made:
    return "a.zip", zipped({f"{n}.txt": b"x" * _size(draw) for n in range(draw.choice([1, 30]))})


def _entries(draw: random.Random) -> Made:
    return "a.zip", zipped({f"{n}.txt": b"x" for n in range(draw.choice([9_000, 11_000]))})


def _directory(draw: random.Random) -> Made:
    """An end record that announces more than there is."""
    size, place = draw.choice([0xFFFFFFFE, 1 << 24, 0]), draw.choice([0, 0xFFFFFFFE])
    return "a.zip", b"PK\x03\x04" + b"\0" * 26 + struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, 65_535, 65_535, size, place, 0
    )


def _nested(draw: random.Random) -> Made:
    content = b"deep"
    for depth in range(draw.choice([3, 4, 200])):
        content = zipped({f"{depth}.zip" if depth else "a.txt": content}, zipfile.ZIP_STORED)
    return "a.zip", content


def _packed_again(draw: random.Random) -> Made:
    content = b'{"text": "deep"}'
    for _ in range(draw.choice([3, 4, 500])):
        content = gzip.compress(content, mtime=0)
    return "a.jsonl.gz", content


def _paths(draw: random.Random) -> Made:
    names = [
        "../../evil.txt",
        "/etc/evil.txt",
        "..\\evil.txt",
        "C:\\evil.txt",
        "a\0b.txt",
        "x" * 60_000,
        "\n.txt",
        "é,part:1",
    ]
    return "a.zip", zipped(dict.fromkeys(names, b"text of it"))


def _lol(draw: random.Random) -> Made:
    n, each = draw.choice([(9, 10), (3, 100)]), draw.choice(["lol", "x" * 1_000])
    entities = "".join(f'<!ENTITY e{i} "{(f"&e{i - 1};" if i else each) * n[1]}">' for i in range(n[0]))
    body = f"<?xml version='1.0'?><!DOCTYPE r [{entities}]><r a='&e{n[0] - 1};'>&e{n[0] - 1};</r>"
    return draw.choice(["a.xml", "a.txt", "a.html"]), body.encode()


def _external(draw: random.Random) -> Made:
    uri = draw.choice(["file:///etc/passwd", "http://127.0.0.1:9/x", "/dev/zero", "file:///dev/urandom"])
    head = draw.choice(
        [f'<!DOCTYPE r SYSTEM "{uri}">', f'<!DOCTYPE r [<!ENTITY x SYSTEM "{uri}"> <!ENTITY % p SYSTEM "{uri}"> %p;]>']
    )
    return "a.xml", f"<?xml version='1.0'?>{head}<r>&x; text</r>".encode()


def _deep_xml(draw: random.Random) -> Made:
    return "a.xml", b"<?xml version='1.0'?>" + b"<a>" * (_size(draw) // 3)


def _deep_json(draw: random.Random) -> Made:
    opening = draw.choice([b"[", b'{"a":', b'[{"text":', b'{"text":['])
    return draw.choice(["a.json", "a.jsonl"]), opening * (_size(draw) // len(opening))


def _wide_json(draw: random.Random) -> Made:
    item = draw.choice([b"[],", b'{"":1},', b"1,", b'"",'])
    return "a.json", b"[" + draw.choice([b"", b"["]) + item * (_size(draw) // 4 // len(item)) + b"1]"


def _names(draw: random.Random) -> Made:
    return "a.jsonl", b"\n".join(json.dumps({f"n{n}": n, "text": "t"}).encode() for n in range(_size(draw) // 100))


def _numbers(draw: random.Random) -> Made:
    number = draw.choice([b"9" * 100_000, b"1e400", b"-0", b"1." + b"3" * 50_000, b"NaN"])
    return draw.choice(["a.json", "a.jsonl"]), b'[{"text": "t", "id": ' + number + b"}]"


def _quote(draw: random.Random) -> Made:
    return "a.csv", b'id,text\n1,"' + b'never closed\n1,"a""b"\n' * (_size(draw) // 20)


def _fields(draw: random.Random) -> Made:
    return draw.choice(["a.csv", "a.tsv"]), draw.choice([b",", b"\t", b'"",']) * _size(draw) + b"\ntext"


def _line(draw: random.Random) -> Made:
    return draw.choice(["a.jsonl", "a.csv", "a.txt", "a.md", "a.json"]), draw.choice([b"x", b"\xff", b" "]) * (
        5 * _size(draw)
    )


def _html(draw: random.Random) -> Made:
    piece = draw.choice(
        [
            *(
                "<div>",
                "<p>word ",
                "<p class=comment>a b</p>",
                "<b><i>t",
                "<table><tr><td>",
                "<ul><li>w",
                "<a href=x>w</a> ",
            ),
            *(
                "word<br>",
                "<span>a</span>",
                "<!--",
                "<",
                "&#x41;",
                "<p>",
                "<form><input>",
                "<svg><style>",
                "<h1>a</h1>",
            ),
            *("<script>", "<p>" + "word " * 30 + "</p>", "<blockquote>", "<font><p>", "<select><option>"),
        ]
    )
    return "a.html", ("<html><body>" + piece * (draw.choice([20_000, 200_000, 2_000_000]) // len(piece))).encode()


def _attributes(draw: random.Random) -> Made:
    return "a.html", b"<html><body><p " + b"a%d=x " % draw.randrange(9) * (_size(draw) // 6) + b">text</p>"


def _pages(draw: random.Random) -> Made:
    kid = b"4 0 R "
    content = pdf(["a page"]).replace(b"/Kids [4 0 R]", b"/Kids [" + kid * draw.choice([100, 20_000, 200_000]) + b"]")
    return "a.pdf", content.replace(b"/Count 1 ", b"/Count 2000000000 ")


def _pdf_stream(draw: random.Random) -> Made:
    drawn = draw.choice([b"(x) Tj ", b"q ", b"BT ", b"/X Do ", b"0 0 1 1 re f ", b"["]) * (_size(draw) // 4)
    stream = zlib.compress(b"BT /F1 9 Tf " + drawn)
    original = pdf(["a page"])
    start, end = original.index(b"stream\n") + 7, original.index(b"\nendstream")
    return "a.pdf", original[:start] + stream + original[end:]


def _pdf_loop(draw: random.Random) -> Made:
    return "a.pdf", pdf(["a page"] * 3).replace(
        b"/Kids [4 0 R", draw.choice([b"/Kids [2 0 R", b"/Kids [1 0 R", b"/Kids [99 0 R"])
    )


def _docx(draw: random.Random) -> Made:
    with zipfile.ZipFile(io.BytesIO(docx(["a paragraph"]))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    piece = draw.choice([b"<w:p/>", b"<w:p><w:r><w:t>x</w:t></w:r></w:p>", b"<w:tbl><w:tr><w:tc>", b"<w:sdt>"])
    files["word/document.xml"] = files["word/document.xml"].replace(
        b"<w:body>", b"<w:body>" + piece * (_size(draw) // len(piece))
    )
    if draw.random() < 0.3:
        files["word/media/image.png"] = bytes(60 * _size(draw))
    return "a.docx", zipped(files)


def _grid(draw: random.Random) -> Made:
    """Cells that say that they span millions of columns."""
    with zipfile.ZipFile(io.BytesIO(docx(["a paragraph"]))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    span = b'<w:tc><w:tcPr><w:gridSpan w:val="%d"/>' % draw.choice([2, 10**6, 10**9, 10**18])
    files["word/document.xml"] = files["word/document.xml"].replace(b"<w:tc><w:tcPr>", span)
    return "a.docx", zipped(files)


def _epub(draw: random.Random) -> Made:
    piece = draw.choice(["<div>", "<p>x</p>", "&amp;", "<!--x-->", "word "])
    return "a.epub", epub([piece * (_size(draw) // len(piece))] * draw.choice([1, 3]))


def _warc(draw: random.Random) -> Made:
    original = warc(["a page"])
    return "a.warc", draw.choice(
        [
            original[:12] + b"X: " + b"y" * (5 * _size(draw)),
            original.replace(b"Content-Length: ", b"Content-Length: 9999999"),
            original.replace(b"Content-Length: ", b"Content-Length: -"),
            original + b"\r\n" * _size(draw),
            original * 50,
        ]
    )


def _web_body(draw: random.Random) -> Made:
    """A response that unpacks to much more than it is."""
    original, body = warc(["a page", "another"]), gzip.compress(b"<p>x" * (5 * _size(draw)))
    head, _, _ = original.rpartition(b"\x1f\x8b")
    length = original.rfind(b"Content-Length: ", 0, len(head))
    end = original.index(b"\r\n", length)
    n_bytes = len(head) - original.index(b"\r\n\r\n", length) - 4 + len(body)
    return "a.warc", original[:length] + b"Content-Length: %d" % n_bytes + head[end:] + body + b"\r\n\r\n"


def _dictionary(draw: random.Random) -> Made:
    """One long value that stands in very many rows."""
    values = pa.DictionaryArray.from_arrays(pa.array([0] * draw.choice([10, 5_000]), pa.int32()), ["x" * _size(draw)])
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": values}), sink)
    return "a.parquet", sink.getvalue()


def _columns(draw: random.Random) -> Made:
    sink = io.BytesIO()
    pq.write_table(pa.table({f"c{n}": [1] for n in range(3_000)} | {"text": ["t"]}), sink)
    return "a.parquet", sink.getvalue()


def _pickle(draw: random.Random) -> Made:
    return draw.choice(["a.pkl", "a.txt", "a.jsonl", "a", "a.csv"]), pickle.dumps(
        ["x", {"text": "y"}], draw.randrange(6)
    )


def _nothing(draw: random.Random) -> Made:
    return draw.choice(["a.jsonl", "a.pdf", "a.zip", "a", "a.txt.gz"]), draw.choice(
        [b"", b"\n", b"\0", b"\xef\xbb\xbf", b"PK\5\6" + bytes(18)]
    )


def _noise(draw: random.Random) -> Made:
    magic = draw.choice(
        [
            b"",
            b"PAR1",
            b"%PDF-1.7\n",
            b"PK\3\4",
            b"\x1f\x8b\x08",
            b"\x28\xb5\x2f\xfd",
            b"BZh91AY&SY",
            b"WARC/1.0\r\n",
            b"<html>",
        ]
    )
    return draw.choice(["a.txt", "a.html", "a.csv", "a.xml", "a"]), magic + draw.randbytes(
        draw.choice([10, 1_000, 100_000])
    )


_ALL: tuple[Callable[[random.Random], Made], ...] = (
    *(
        _gzip,
        _zstd,
        _bz2,
        _members,
        _zip,
        _entries,
        _directory,
        _nested,
        _packed_again,
        _paths,
        _lol,
        _external,
        _deep_xml,
    ),
    *(
        _deep_json,
        _wide_json,
        _names,
        _numbers,
        _quote,
        _fields,
        _line,
        _html,
        _html,
        _html,
        _html,
        _attributes,
        _pages,
    ),
    *(_pdf_stream, _pdf_loop, _docx, _grid, _epub, _warc, _web_body, _dictionary, _columns, _pickle, _nothing, _noise),
)
BOMBS = {f"{number:02d}": make for number, make in enumerate(_ALL)}
