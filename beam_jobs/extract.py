"""From an object's bytes to documents and dead letters. Nothing an object holds can raise out of here."""

from __future__ import annotations

import codecs
import io
import json
import logging
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from charset_normalizer import from_bytes

from beam_jobs.inflate import GZIP_MAGIC, Inflated, Readable, TooLarge, TruncatedGzip
from beam_jobs.paragraphs import parts_of_text
from lake.errors import StorageError
from lake.recipe import PrepareRules

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
    ".html": "html",
    ".htm": "html",
}
_DETAIL_CHARACTERS = 200
_CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_BYTE_ORDER_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Extracted:
    """A document, or a dead letter when `reason` is set.

    `position` is unique in its object: `line:N`, `row:N`, `byte:N` or `object`, with `,part:N` after it (`part:N` alone
    for a whole object) where a long document was split.
    """

    position: str
    text: str = ""
    given_id: str | None = None
    reason: str | None = None
    detail: str = ""


def extract(key: str, stream: Readable, rules: PrepareRules) -> Iterator[Extracted]:
    """Yield the documents of one object, and a dead letter for everything in it that cannot be read.

    Raises StorageError when the stream does: that is the store's fault, not the object's.
    """
    head = stream.read(4)
    if not head:
        yield Extracted("object", reason="empty_object", detail="0 bytes")
        return
    name = key.rsplit("/", 1)[-1].lower().removesuffix(".gz")
    extension = name[name.rfind(".") :] if "." in name else ""
    kind = "parquet" if head == b"PAR1" else _FORMATS.get(extension)
    if kind is None:
        yield Extracted("object", reason="unsupported_format", detail=extension or "no extension")
        return
    body = Inflated(stream, head, compressed=head.startswith(GZIP_MAGIC), max_bytes=rules.max_object_bytes)
    readers = {"jsonl": _jsonl, "json": _json, "parquet": _parquet, "text": _text, "html": _html}
    try:
        found_any = False
        for found in readers[kind](body, rules):
            found_any = True
            yield from _parts(found, rules.max_characters)
        if not found_any:
            yield Extracted("object", reason="no_text", detail="no document in the object")
    except TruncatedGzip as error:
        yield Extracted(f"byte:{error.n_bytes}", reason="truncated_gzip", detail=f"ends after {error.n_bytes} bytes")
    except TooLarge:
        yield Extracted("object", reason="too_large", detail=f"more than {rules.max_object_bytes} bytes when unpacked")
    except zlib.error as error:
        yield Extracted("object", reason="bad_gzip", detail=_short(error))
    except (StorageError, MemoryError):
        raise
    except Exception as error:  # parsers of five formats, and whatever they raise on input made to break them
        yield Extracted("object", reason="unreadable", detail=_short(f"{type(error).__name__}: {error}"))


def _jsonl(body: Inflated, rules: PrepareRules) -> Iterator[Extracted]:
    for number, line in enumerate(body.lines(rules.max_record_bytes), start=1):
        position = f"line:{number}"
        if line is None:
            detail = f"line longer than {rules.max_record_bytes} bytes"
            yield Extracted(position, reason="record_too_large", detail=detail)
        elif line.strip():
            yield _json_record(line, position, rules)


def _json(body: Inflated, rules: PrepareRules) -> Iterator[Extracted]:
    """One JSON value: an object, or an array of objects. Falls back to lines, as many files so named hold them."""
    content = body.read()
    try:
        loaded = json.loads(content)
    except (ValueError, RecursionError):
        lines = Inflated(io.BytesIO(content), b"", compressed=False, max_bytes=rules.max_object_bytes)
        yield from _jsonl(lines, rules)
        return
    records = loaded if isinstance(loaded, list) else [loaded]
    for number, record in enumerate(records, start=1):
        yield _record(record, f"row:{number}", rules)


def _json_record(line: bytes, position: str, rules: PrepareRules) -> Extracted:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Extracted(position, reason="bad_encoding", detail=_encoding_hint(line, error))
    except (ValueError, RecursionError) as error:
        return Extracted(position, reason="bad_json", detail=_short(error))
    return _record(record, position, rules)


def _record(record: Any, position: str, rules: PrepareRules) -> Extracted:
    if not isinstance(record, dict):
        detail = f"an object with {rules.text_field!r} expected, found {type(record).__name__}"
        return Extracted(position, reason="no_text_field", detail=detail)
    text = record.get(rules.text_field)
    if not isinstance(text, str):
        found = type(text).__name__ if rules.text_field in record else f"only {', '.join(map(str, list(record)[:10]))}"
        return Extracted(
            position, reason="no_text_field", detail=_short(f"text in {rules.text_field!r} expected, found {found}")
        )
    if len(text) > rules.max_record_bytes:
        detail = f"{len(text)} characters, at most {rules.max_record_bytes} bytes"
        return Extracted(position, reason="record_too_large", detail=detail)
    given = record.get("id")
    named = isinstance(given, str | int) and not isinstance(given, bool)
    return Extracted(position, text=text, given_id=_short(given) if named else None)


def _parquet(body: Inflated, rules: PrepareRules) -> Iterator[Extracted]:
    content = body.read()
    number = 0
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        names = file.schema_arrow.names
        if rules.text_field not in names:
            detail = _short(f"no column {rules.text_field!r}; found {', '.join(names)}")
            yield Extracted("object", reason="no_text_field", detail=detail)
            return
        columns = [rules.text_field] + (["id"] if "id" in names and rules.text_field != "id" else [])
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            for row in range(batch.num_rows):
                number += 1
                yield _parquet_row(batch, row, f"row:{number}", rules)
    except (pa.ArrowException, OSError) as error:
        yield Extracted(f"row:{number + 1}" if number else "object", reason="bad_parquet", detail=_short(error))


def _parquet_row(batch: pa.RecordBatch, row: int, position: str, rules: PrepareRules) -> Extracted:
    try:
        record = {name: batch.column(name)[row].as_py() for name in batch.schema.names}
    except UnicodeDecodeError as error:  # a string column of which nobody has checked that it holds strings
        return Extracted(position, reason="bad_encoding", detail=f"not UTF-8 at byte {error.start}")
    return _record(record, position, rules)


def _text(body: Inflated, rules: PrepareRules) -> Iterator[Extracted]:  # noqa: ARG001  # the readers' signature
    content = body.read()
    try:
        yield Extracted("object", text=_decoded(content))
    except UnicodeDecodeError as error:
        yield Extracted(f"byte:{error.start}", reason="bad_encoding", detail=_encoding_hint(content, error))


def _html(body: Inflated, rules: PrepareRules) -> Iterator[Extracted]:  # noqa: ARG001  # the readers' signature
    import trafilatura  # a second of import that other formats do not need

    content = body.read()
    declared = _CHARSET.search(content[:4096])
    try:
        page = _decoded(content, declared.group(1).decode() if declared else None)
    except UnicodeDecodeError as error:
        yield Extracted(f"byte:{error.start}", reason="bad_encoding", detail=_encoding_hint(content, error))
        return
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # the dead letter tells what its errors would
    text = trafilatura.extract(page, favor_recall=True, include_comments=False, deduplicate=False)
    if text:
        yield Extracted("object", text=text)
    else:
        yield Extracted("object", reason="no_text", detail="no text in the page")


def _decoded(content: bytes, declared: str | None = None) -> str:
    """UTF-8, or UTF-16 or 32 with its byte order mark, or what the page declares. Else raises UnicodeDecodeError."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if declared is None:
            raise
        try:
            # What calls itself latin-1 on the web is Windows' superset of it (WHATWG Encoding Standard, 4.2).
            return content.decode("cp1252" if codecs.lookup(declared).name == "iso8859-1" else declared)
        except (LookupError, UnicodeError):
            pass  # no encoding of that name, or the page is not in it: told as what it is, not UTF-8
        raise


def _encoding_hint(content: bytes, error: UnicodeDecodeError) -> str:
    """What the bytes look like, so that the sender can convert them. Guessing and going on would keep mojibake."""
    guess = from_bytes(content[:20_000]).best()
    looks = f"; looks like {guess.encoding}" if guess else ""
    return f"not UTF-8 at byte {error.start}{looks}"


def _short(told: object) -> str:
    """One line that any file can hold: JSON lets single surrogates through, which UTF-8 does not."""
    line = " ".join(str(told).split())[:_DETAIL_CHARACTERS]
    return line.encode("utf-8", "replace").decode()


def _parts(found: Extracted, max_characters: int) -> Iterator[Extracted]:
    """Split a long document at paragraphs, or at words where a paragraph alone is too long."""
    if found.reason is not None or len(found.text) <= max_characters:
        yield found
        return
    for number, part in enumerate(parts_of_text(found.text, max_characters), start=1):
        given = f"{found.given_id}#{number}" if found.given_id else None
        position = f"part:{number}" if found.position == "object" else f"{found.position},part:{number}"
        yield Extracted(position, text=part, given_id=given)
