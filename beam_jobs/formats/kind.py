"""What an object is: by its content first, by its name only where the content cannot tell.

Content tells: compressions, archives, Parquet, PDF, archives of the web, pages that begin with a doctype or `<html`, XML
that begins with its declaration, and binary things that hold no text. The name tells tables from prose and Markdown from
plain text; Markdown that begins with some other tag stays Markdown. Without a known extension, what begins with a bracket
is JSON, and without any extension, what is UTF-8 without control characters is text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from beam_jobs.formats.charset import BYTE_ORDER_MARKS
from beam_jobs.formats.extracted import Unreadable

HEAD_BYTES = 4_096

_EXTENSIONS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
    ".rst": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".xml": "xml",
}
_PACKED = (".gz", ".zst", ".bz2", ".zip")
_PDF_HEAD_BYTES = 1_024  # within which readers look for the header (PDF 1.7, implementation note 13)


class _Magic(NamedTuple):
    at: int
    pattern: bytes
    kind: str


_MAGIC = (
    _Magic(0, rb"\x1f\x8b", "gzip"),
    _Magic(0, rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", "zstd"),
    _Magic(0, rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)", "bz2"),
    _Magic(0, rb"PK(\x03\x04|\x05\x06)", "zip"),
    _Magic(0, rb"PAR1", "parquet"),
    _Magic(0, rb"%PDF-", "pdf"),
    _Magic(0, rb"WARC/[01]\.\d+\r?\n", "warc"),
)
# Things with a signature that hold no text that we could read: told at once, before a text reader makes noise of them.
_FOREIGN = (
    _Magic(0, rb"\x80[\x02-\x05]", "pickle"),
    _Magic(0, rb"\x93NUMPY", "numpy array"),
    _Magic(0, rb"\x7fELF|MZ.{58}|\xca\xfe\xba\xbe|[\xce\xcf]\xfa\xed\xfe|\0asm", "program"),
    _Magic(0, rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|II\*\0|MM\0\*|BM.{4}\0{4}", "image"),
    _Magic(0, rb"OggS|ID3|fLaC|RIFF.{4}(WAVE|AVI |WEBP)|\x1a\x45\xdf\xa3", "sound or film"),
    _Magic(4, rb"ftyp", "film"),
    _Magic(0, rb"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|\xfd7zXZ\0|\x04\x22\x4d\x18", "archive of another kind"),
    _Magic(257, rb"ustar", "tar archive"),
    _Magic(0, rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old office document"),
    _Magic(0, rb"\{\\rtf", "rich text"),
    _Magic(0, rb"%!PS", "PostScript"),
    _Magic(0, rb"SQLite format 3\0", "database"),
    _Magic(0, rb"\x89HDF|ORC|Obj\x01|ARROW1", "table of another kind"),
)
_COMPILED = tuple((magic, re.compile(magic.pattern, re.DOTALL)) for magic in (*_MAGIC, *_FOREIGN))
_FOREIGN_KINDS = frozenset(magic.kind for magic in _FOREIGN)
_COMMENTS = re.compile(r"(\s*<!--.{0,2000}?-->)*\s*", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def kind_of(head: bytes, name: str) -> str:
    """The reader for an object that begins with `head`, HEAD_BYTES of it. Raises Unreadable `unsupported_format`."""
    for magic, compiled in _COMPILED:
        if compiled.match(head, magic.at):
            if magic.kind in _FOREIGN_KINDS:
                raise Unreadable("unsupported_format", magic.kind)
            return magic.kind
    extension = extension_of(name)
    opening = _opening(head)
    if opening.startswith(("<!doctype html", "<html")):
        return "html"
    if opening.startswith("<?xml"):
        return "html" if "<html" in opening or "<!doctype html" in opening else "xml"
    if extension == ".pdf" and b"%PDF-" in head[:_PDF_HEAD_BYTES]:
        return "pdf"
    known = _EXTENSIONS.get(extension)
    if known:
        return known
    if opening.startswith(("{", "[")):
        return "json"
    if not extension and is_text(head):
        return "text"
    raise Unreadable("unsupported_format", f"{extension or 'no extension'}, and content of no known format")


def extension_of(name: str) -> str:
    """The last extension of the last part of a key, lower case, with its dot; empty when there is none."""
    name = name.rsplit("/", 1)[-1].lower()
    return name[name.rfind(".") :] if "." in name else ""


def unpacked_name(name: str) -> str:
    """The name without the extension of a compression."""
    extension = extension_of(name)
    return name[: -len(extension)] if extension in _PACKED else name


def is_text(head: bytes) -> bool:
    """Whether it is UTF-8 without control characters; the last character may be cut off."""
    try:
        return not _CONTROL.search(head.decode())
    except UnicodeDecodeError as error:
        return (
            error.start >= len(head) - 3
            and len(head) == HEAD_BYTES
            and not _CONTROL.search(head[:-3].decode("utf-8", "replace"))
        )


def _opening(head: bytes) -> str:
    """The beginning in lower case, without marks, space and comments."""
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8")
    text = head.decode(encoding, "replace").lower()
    found = _COMMENTS.match(text)
    return text[found.end() :] if found else text
