"""Small valid files of every format, made at run time: what the mutations start from."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from docx import Document
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from tests.documents import document

N_DOCUMENTS = 4


def samples() -> dict[str, bytes]:
    """A file by its name."""
    texts = [document(number, n_sentences=4) for number in range(N_DOCUMENTS)]
    records = [{"id": f"d{number}", "text": text, "n": number} for number, text in enumerate(texts)]
    plain = {
        "a.jsonl": "".join(json.dumps(record) + "\n" for record in records).encode(),
        "a.json": json.dumps(records, indent=1).encode(),
        "a.csv": table(records, ","),
        "a.tsv": table(records, "\t"),
        "a.txt": "\n\n".join(texts).encode(),
        "a.md": ("# Title\n\n" + "\n\n".join(texts)).encode(),
        "latin.txt": ("Les élèves français étudient à l’école. " * 20).encode("cp1252"),
        "wide.txt": "\n\n".join(texts).encode("utf-16"),
        "a.html": page(texts).encode(),
        "a.xml": xml(texts).encode(),
        "a.parquet": parquet(records),
        "a.pdf": pdf(texts),
        "a.docx": docx(texts),
        "a.epub": epub(texts),
        "a.warc": warc(texts),
    }
    packed = {
        "a.jsonl.gz": gzip.compress(plain["a.jsonl"], mtime=0),
        "a.jsonl.zst": zstandard.compress(plain["a.jsonl"]),
        "a.jsonl.bz2": bz2.compress(plain["a.jsonl"]),
        "a.warc.gz": warc(texts, packed=True),
        "a.zip": zipped({name: plain[name] for name in ("a.jsonl", "a.html", "a.pdf", "a.csv")}),
        "nested.zip": zipped(
            {"b.zip": zipped({"a.txt": plain["a.txt"]}), "a.jsonl.gz": gzip.compress(plain["a.jsonl"])}
        ),
    }
    return plain | packed


def table(records: Sequence[dict[str, object]], delimiter: str) -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, list(records[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(records)
    return sink.getvalue().encode()


def page(texts: Sequence[str]) -> str:
    paragraphs = "".join(f"<p class='x'>{text}</p>\n" for text in texts)
    return (
        "<!doctype html><html><head><meta charset=utf-8><title>t</title></head><body><nav><a href='/'>home</a></nav>"
        f"<article><h1>Title</h1>{paragraphs}<table><tr><td>1</td></tr></table></article></body></html>"
    )


def xml(texts: Sequence[str]) -> str:
    items = "".join(
        f"<item id='{number}'><body>{text} &amp; <b>more</b></body></item>" for number, text in enumerate(texts)
    )
    return f'<?xml version="1.0" encoding="utf-8"?><!DOCTYPE list [<!ENTITY x "y">]><list>{items}&x;</list>'


def parquet(records: Sequence[dict[str, object]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(records)), sink, row_group_size=2)
    return sink.getvalue()


def pdf(pages: Sequence[str]) -> bytes:
    """A page of Helvetica for each text, 80 characters a line (PDF 1.7, 7.5)."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    bodies: dict[int, bytes] = {}
    for text in pages:
        lines = [
            text[at : at + 80].replace("\\", "").replace("(", "").replace(")", "") for at in range(0, len(text), 80)
        ]
        drawn = "BT /F1 11 Tf 40 780 Td 13 TL " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
        stream = zlib.compress(drawn.encode("latin-1", "replace"))
        kids.append(len(objects) + 1)
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {len(objects) + 2} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} /Filter /FlateDecode >>")
        bodies[len(objects)] = stream
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(f'{kid} 0 R' for kid in kids)}] /Count {len(kids)} >>"
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\n".encode()
        if number in bodies:
            out += b"stream\n" + bodies[number] + b"\nendstream\n"
        out += b"endobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    out += f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(out)


def docx(texts: Sequence[str]) -> bytes:
    opened, sink = Document(), io.BytesIO()
    opened.add_heading("Title")
    for text in texts:
        opened.add_paragraph(text)
    grid = opened.add_table(rows=2, cols=2)
    for number, cell in enumerate(cell for row in grid.rows for cell in row.cells):
        cell.text = f"cell {number}"
    opened.add_paragraph("After the table.")
    opened.save(sink)
    return sink.getvalue()


def epub(texts: Sequence[str]) -> bytes:
    items = "".join(
        f'<item id="c{n}" href="ch%20{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(texts))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(texts)))
    chapters = {
        f"OPS/ch {n}.xhtml": (
            '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>t</title></head>'
            f"<body><h1>Chapter {n}</h1><p>{text}</p></body></html>"
        ).encode()
        for n, text in enumerate(texts)
    }
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
        '<rootfile full-path="OPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/>'
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    return zipped(
        {
            "mimetype": b"application/epub+zip",
            "META-INF/container.xml": container.encode(),
            "OPS/book.opf": package.encode(),
        }
        | chapters
    )


def warc(texts: Sequence[str], packed: bool = False) -> bytes:
    sink = io.BytesIO()
    writer = WARCWriter(sink, gzip=packed)
    for number, text in enumerate(texts):
        body = page([text]).encode()
        headers = [("Content-Type", "text/html; charset=utf-8")]
        if number % 2:
            body, headers = gzip.compress(body), [*headers, ("Content-Encoding", "gzip")]
        writer.write_record(
            writer.create_warc_record(
                f"http://example.com/{number}",
                "response",
                payload=io.BytesIO(body),
                http_headers=StatusAndHeaders("200 OK", headers, protocol="HTTP/1.1"),
            )
        )
    return sink.getvalue()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return sink.getvalue()
