"""From bytes to text: what the bytes say, what their sender says, and what they look like, in this order.

UTF-8 is tried first whatever is declared, as text in another encoding is hardly ever valid UTF-8 by chance.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from charset_normalizer import from_bytes

from beam_jobs.formats.detect import SAMPLE_BYTES, detected_charset
from beam_jobs.formats.extracted import Unreadable

BYTE_ORDER_MARKS = {  # the longer ones first: that of UTF-32-LE begins with that of UTF-16-LE
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
_CHANCE_CHARACTERS = 3
_META = re.compile(rb"charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)


def decoded(chunks: Iterable[bytes], declared: str | None, *, detect: bool) -> Iterator[str]:
    """Text in pieces. Raises Unreadable `bad_encoding` with the byte where it stops being readable.

    A text that begins in ASCII is UTF-8 until a byte says otherwise; from there on the encoding is what was declared,
    or what it looks like if `detect` and there is little doubt.
    """
    stream = iter(chunks)
    first = next(stream, b"")
    while len(first) < 4 and (more := next(stream, b"")):
        first += more
    encoding = _marked(first) or "utf-8"
    decoder, n_bytes, is_ascii = codecs.getincrementaldecoder(encoding)(), 0, True
    for chunk in chain([first], stream):
        pending = decoder.getstate()[0]
        try:
            piece = decoder.decode(chunk)
        except UnicodeDecodeError as error:
            rest, start = pending + chunk, n_bytes - len(pending)
            if encoding != "utf-8" or not is_ascii or not _may_be_chance(rest[: error.start]):
                raise _bad_encoding(rest, error, start) from None
            yield from _in_another(rest, stream, declared, detect, error, start)
            return
        n_bytes += len(chunk)
        is_ascii = is_ascii and piece.isascii()
        yield piece
    try:
        yield decoder.decode(b"", True)
    except UnicodeDecodeError as error:
        rest = decoder.getstate()[0]
        if encoding != "utf-8" or not is_ascii:
            raise _bad_encoding(rest, error, n_bytes - len(rest)) from None
        yield from _in_another(rest, stream, declared, detect, error, n_bytes - len(rest))


def decoded_whole(content: bytes, declared: str | None, *, detect: bool) -> str:
    """The text of one piece, such as a page. Raises Unreadable `bad_encoding`."""
    marked = _marked(content)
    try:
        return content.decode(marked or "utf-8")
    except UnicodeDecodeError as error:
        if marked is None and declared and (text := _as_declared(content, declared)) is not None:
            return text
        seen = detected_charset(content) if marked is None and detect else None
        if seen and (text := _as_declared(content, seen)) is not None:  # only its beginning was looked at
            return text
        raise _bad_encoding(content, error, 0) from None


def meta_charset(page: bytes) -> str | None:
    """What the beginning of an HTML page declares."""
    found = _META.search(page[:4096])
    return found.group(1).decode("ascii", "replace") if found else None


def transcoded(chunks: Iterable[bytes], head: bytes) -> Iterator[bytes]:
    """UTF-16 and UTF-32 by their mark as UTF-8, everything else as it is: for formats that are UTF-8 by definition."""
    if _marked(head) in (None, "utf-8-sig"):
        yield from chunks
    else:
        yield from (piece.encode("utf-8", "replace") for piece in decoded(chunks, None, detect=False))


def encoding_hint(content: bytes, start: int) -> str:
    """What the bytes look like, so that the sender can convert them."""
    guess = from_bytes(content[:SAMPLE_BYTES]).best()
    return f"not UTF-8 at byte {start}" + (f"; looks like {guess.encoding}" if guess else "")


def _marked(content: bytes) -> str | None:
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)


def _in_another(
    rest: bytes, stream: Iterator[bytes], declared: str | None, detect: bool, error: UnicodeDecodeError, start: int
) -> Iterator[str]:
    """Go on in the encoding that is declared, or seen in the first bytes that are not ASCII and what follows them."""
    while len(rest) < error.start + SAMPLE_BYTES and (more := next(stream, b"")):
        rest += more
    encoding = _codec(declared) if declared else None
    if encoding is None and detect:
        encoding = detected_charset(rest[max(0, error.start - 1_000) :])
    if encoding is None:
        raise _bad_encoding(rest, error, start)
    decoder, n_bytes = codecs.getincrementaldecoder(encoding)(), start
    for chunk in chain([rest], stream):
        try:
            yield decoder.decode(chunk)
        except UnicodeError as failed:
            at = n_bytes + getattr(failed, "start", 0)
            raise Unreadable("bad_encoding", f"not {encoding} at byte {at}", f"byte:{at}") from None
        n_bytes += len(chunk)


def _may_be_chance(valid: bytes) -> bool:
    """Whether bytes that are valid UTF-8 do not show that it is: two bytes of Chinese in GB 18030 are now and then."""
    return valid.isascii() or sum(1 for byte in valid if byte >= 0xC0) <= _CHANCE_CHARACTERS


def _as_declared(content: bytes, declared: str) -> str | None:
    encoding = _codec(declared)
    try:
        return content.decode(encoding) if encoding else None
    except UnicodeError:
        return None


def _codec(declared: str) -> str | None:
    """Python's name of a declared text encoding; None when it knows none, or one that is not of texts."""
    try:
        found = codecs.lookup(declared)
    except (LookupError, ValueError):
        return None
    if not found._is_text_encoding or found.name in ("undefined", "idna", "punycode", "unicode-escape"):
        return None
    # What calls itself latin-1 on the web is Windows' superset of it (WHATWG Encoding Standard, 4.2).
    return "cp1252" if found.name == "iso8859-1" else found.name


def _bad_encoding(content: bytes, error: UnicodeDecodeError, start: int) -> Unreadable:
    at = start + error.start
    return Unreadable("bad_encoding", encoding_hint(content[max(0, error.start - 1_000) :], at), f"byte:{at}")
