"""Cut a long text into parts of bounded length, at the best place near the end of each."""

from __future__ import annotations

from collections.abc import Iterator


def parts_of_text(text: str, max_characters: int) -> Iterator[str]:
    """Yield parts of at most `max_characters` that make up the text: cut after a blank line, else after a space.

    Neither is looked for in the first quarter of a part, so that one early break does not make a tiny part.
    """
    start = 0
    while len(text) - start > max_characters:
        end, earliest = start + max_characters, start + max_characters // 4
        blank_line, space = text.rfind("\n\n", earliest, end), text.rfind(" ", earliest, end)
        cut = blank_line + 2 if blank_line >= 0 else space + 1 if space >= 0 else end
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]
