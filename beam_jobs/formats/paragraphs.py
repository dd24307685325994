"""Cut a long text into parts of bounded length, at the best place near the end of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from beam_jobs.formats.extracted import Extracted, inside

_KEY, _KEY_END = "-----BEGIN ", "-----END "


def parts_of_text(pieces: Iterable[str], max_characters: int) -> Iterator[str]:
    """Yield parts of at most `max_characters` that make up the pieces put together, holding no more than one and a piece.

    They are cut after a blank line, else after a space, not within a number or a private key. Neither is looked for in the first quarter of a part, so that one
    early break does not make a tiny part.
    """
    waiting: list[str] = []
    n_waiting = 0
    for piece in pieces:
        waiting.append(piece)
        n_waiting += len(piece)
        if n_waiting > max_characters:
            text, start = "".join(waiting), 0
            while len(text) - start > max_characters:
                end = _cut(text, start, max_characters)
                yield text[start:end]
                start = end
            waiting, n_waiting = [text[start:]], len(text) - start
    if n_waiting:
        yield "".join(waiting)


def split_document(found: Extracted, max_characters: int) -> Iterator[Extracted]:
    """A document that is too long, in parts; anything else as it is."""
    if found.reason is not None or len(found.text) <= max_characters:
        yield found
        return
    for number, part in enumerate(parts_of_text([found.text], max_characters), start=1):
        given = f"{found.given_id}#{number}" if found.given_id else None
        yield Extracted(inside(found.position, f"part:{number}"), text=part, given_id=given)


def document_of(pieces: Iterable[str], max_characters: int) -> Iterator[Extracted]:
    """One document that comes in pieces: `object`, or `part:N` as soon as it is known to be too long.

    Nothing at all when there is nothing but space in it.
    """
    held: str | None = None
    number = 0
    for part in parts_of_text(pieces, max_characters):
        if held is not None:
            number += 1
            yield Extracted(f"part:{number}", text=held)
        held = part
    if held is not None and (number or not held.isspace()):
        yield Extracted(f"part:{number + 1}" if number else "object", text=held)


def _cut(text: str, start: int, max_characters: int) -> int:
    end, earliest = start + max_characters, start + max_characters // 4
    blank_line = text.rfind("\n\n", earliest, end)
    cut = blank_line + 2 if blank_line >= 0 else _after_space(text, earliest, end)
    # A private key that is cut in two is no longer seen as one.
    key = text.rfind(_KEY, start, cut + len(_KEY))
    return key if key > start and text.find(_KEY_END, key, cut) < 0 else cut


def _after_space(text: str, earliest: int, end: int) -> int:
    """After the last space that parts no number: what is cut in two is no longer seen as a card's or a telephone's."""
    space = any_space = text.rfind(" ", earliest, end)
    while space >= 0 and text[space - 1].isdigit() and text[space + 1 : space + 2].isdigit():
        space = text.rfind(" ", earliest, space)
    if space < 0:
        space = any_space
    return space + 1 if space >= 0 else end
