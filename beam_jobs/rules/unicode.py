"""Unicode repair and normalisation: mojibake, NFC, one kind of line end and space, nothing invisible."""

from __future__ import annotations

import re
from functools import lru_cache

import ftfy

_UNUSUAL = re.compile(r"[^\t\n -~]")
_SPACES = re.compile(r"[^\S\n]{2,}|[^\S\n ]")
_BLANK_LINES = re.compile(r"\n{3,}")
# Zero-width and bidirectional controls (UAX #9; Trojan Source, Boucher and Anderson 2021), soft hyphens, interlinear
# annotations, tags, and the 66 noncharacters (Unicode 16, 23.7). The joiners U+200C and U+200D stay where scripts and
# emoji need them, next to what is not ASCII.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
    "\ufdd0-\ufdef"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
    + "]+"
    r"|(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])"
)
_SUSPECT = re.compile(_INVISIBLE.pattern[: _INVISIBLE.pattern.index("]")] + "\u200c\u200d]")
# One repair is enough for all but what is made to need more.
_MAX_REPAIRS = 8
_MAX_REMEMBERED_LINES, _MAX_REMEMBERED_CHARACTERS = 4_096, 200


def normalise(text: str) -> str:
    """Repair mojibake, NFC, one kind of line end, no runs of spaces or blank lines, nothing that cannot be seen.

    Idempotent: what one repair uncovers is repaired too.
    """
    if _UNUSUAL.search(text):
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        # ftfy works line by line and leaves plain ASCII alone, but takes 100 times as long to find that out.
        text = "\n".join(_repair(line) if _UNUSUAL.search(line) else line for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", _SPACES.sub(" ", text).replace(" \n", "\n")).strip()


def _repair(line: str) -> str:
    return _remembered(line) if len(line) <= _MAX_REMEMBERED_CHARACTERS else _repaired(line)


@lru_cache(_MAX_REMEMBERED_LINES)
def _remembered(line: str) -> str:
    """Headings, bullets and signs stand in many documents, and ftfy is what takes longest."""
    return _repaired(line)


def _repaired(line: str) -> str:
    for _ in range(_MAX_REPAIRS):
        fixed = ftfy.fix_text(line, normalization="NFC", unescape_html=False)
        if "\n" in fixed:  # a line separator was among what is repaired
            return "\n".join(map(_repaired, fixed.split("\n")))
        seen = _INVISIBLE.sub("", fixed) if _SUSPECT.search(fixed) else fixed
        line = _SPACES.sub(" ", seen).rstrip()
        # Spaces alone make no difference to ftfy, but for those after an à that has lost its no-break space.
        if line == fixed or (seen == fixed and "Ã" not in fixed):
            break
    return line
