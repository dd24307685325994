"""From an object's bytes to documents and dead letters. Nothing an object holds can raise out of here."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from charset_normalizer import from_bytes

from beam_jobs.inflate import GZIP_MAGIC, Inflated, TooLarge, TruncatedGzip
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


@dataclass(frozen=True)
class Extracted:
    """A document, or a dead letter when `reason` is set. `position` is `line:N`, `row:N`, `part:N` or `object`."""

    position: str
    text: str = ""
    given_id: str | None = None
    reason: str | None = None
    detail: str = ""


def extract(key: str, stream: IO[bytes], rules: PrepareRules) -> Iterator[Extracted]:
    """Yield the documents of one object, and a dead letter for everything in it that cannot be read."""
    name = key.lower()
    head = stream.read(4)
    if not head:
        yield Extracted("object", reason="empty_object", detail="0 bytes")
        return
    name = name.removesuffix(".gz")
    extension = name[name.rfind(".") :] if "." in name.rsplit("/", 1)[-1] else ""
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
        yield Extracted("object", reason="bad_gzip", detail=str(error))


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
        return Extracted(position, reason="bad_json", detail=str(error)[:200])
    return _record(record, position, rules)


def _record(record: Any, position: str, rules: PrepareRules) -> Extracted:
    if not isinstance(record, dict) or not isinstance(record.get(rules.text_field), str):
        found = ", ".join(map(str, list(record)[:10])) if isinstance(record, dict) else type(record).__name__
        return Extracted(position, reason="no_text_field", detail=f"no text in {rules.text_field!r}; found {found}")
    given = record.get("id")
    return Extracted(position, text=record[rules.text_field], given_id=given if isinstance(given, str) else None)


def _parquet(body: Inflated, rules: PrepareRules) -> Iterator[Extracted]:
    content = body.read()
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        names = file.schema_arrow.names
        if rules.text_field not in names:
            detail = f"no column {rules.text_field!r}; found {', '.join(names)[:200]}"
            yield Extracted("object", reason="no_text_field", detail=detail)
            return
        columns = [rules.text_field] + (["id"] if "id" in names else [])
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield _record(row, f"row:{number}", rules)
    except (pa.ArrowException, OSError) as error:
        yield Extracted("object", reason="bad_parquet", detail=str(error).splitlines()[0][:200])


def _text(body: Inflated, rules: PrepareRules) -> Iterator[Extracted]:
    content = body.read()
    try:
        yield Extracted("object", text=_decoded(content))
    except UnicodeDecodeError as error:
        yield Extracted(f"byte:{error.start}", reason="bad_encoding", detail=_encoding_hint(content, error))


def _html(body: Inflated, rules: PrepareRules) -> Iterator[Extracted]:
    import trafilatura  # a second of import that other formats do not need

    content = body.read()
    declared = (
        from_bytes(content[:4096], enable_fallback=False).best() if b"charset" in content[:4096].lower() else None
    )
    try:
        page = _decoded(content, declared.encoding if declared else None)
    except UnicodeDecodeError as error:
        yield Extracted(f"byte:{error.start}", reason="bad_encoding", detail=_encoding_hint(content, error))
        return
    try:
        text = trafilatura.extract(page, favor_recall=True, include_comments=False, deduplicate=False)
    except (ValueError, RecursionError, AssertionError) as error:
        yield Extracted("object", reason="bad_html", detail=str(error)[:200])
        return
    if text:
        yield Extracted("object", text=text)
    else:
        yield Extracted("object", reason="no_text", detail="no text in the page")


def _decoded(content: bytes, declared: str | None = None) -> str:
    """UTF-8, or UTF-16 with its byte order mark, or what the page declares. Anything else raises UnicodeDecodeError."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if declared is None:
            raise
        return content.decode(declared)


def _encoding_hint(content: bytes, error: UnicodeDecodeError) -> str:
    """What the bytes look like, so that the sender can convert them. Guessing and going on would keep mojibake."""
    guess = from_bytes(content[:20_000]).best()
    looks = f"; looks like {guess.encoding}" if guess else ""
    return f"not UTF-8 at byte {error.start}{looks}"


def _parts(found: Extracted, max_characters: int) -> Iterator[Extracted]:
    """Split a long document at paragraphs, or at words where a paragraph alone is too long."""
    if found.reason is not None or len(found.text) <= max_characters:
        yield found
        return
    rest, number = found.text, 0
    while rest:
        number += 1
        cut = len(rest)
        if cut > max_characters:
            window = rest[:max_characters]
            cut = max(window.rfind("\n\n") + 2, 0) if window.rfind("\n\n") > max_characters // 4 else 0
            cut = cut or window.rfind(" ", max_characters // 4) + 1 or max_characters
        part, rest = rest[:cut], rest[cut:]
        given = f"{found.given_id}#{number}" if found.given_id else None
        position = f"part:{number}" if found.position == "object" else f"{found.position},part:{number}"
        yield Extracted(position, text=part, given_id=given)
