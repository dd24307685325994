"""Words as the published rules count them: punctuation stands alone, clitics are cut off.

The rules were tuned on the tokens of spaCy's English tokenizer, which datatrove's filters use. This follows it where it
matters for counts: a piece between spaces is cut at its prefixes, suffixes and infixes. Pieces are remembered, as a text
has few different ones: a look-up takes a tenth of the cutting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple
from unicodedata import category

_PUNCTUATION = r"…,:;!?¿؟¡()\[\]{}<>_#*&。？！，、；：～·।،۔؛٪'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉"
_UNIT = (
    "km²|km³|km|m²|m³|dm|cm|mm|nm|µm|ha|yd|in|ft|kg|mg|µg|lb|oz|m/s|km/h|kmh|mph|hPa|Pa|mbar|mb|MB|kb|KB|gb|GB|tb|TB"
)
_OPENING = re.compile(rf"\.{{2,}}|[{_PUNCTUATION}§%=—–$£€¥]|\+(?![0-9])")
_CLOSING = re.compile(
    rf"(?:\.{{2,}}|['’][sS]|[{_PUNCTUATION}—–]|(?<=[0-9])(?:[+$£€¥%mgtTGMK]|{_UNIT})"
    rf"|(?<=[0-9a-zß-öø-ÿ%²+{_PUNCTUATION}-])\.|(?<=[A-Z][A-Z])\.)$"
)
_INFIX = re.compile(
    r"(\.{2,}|…|(?<=[0-9])[+*^-](?=[0-9-])|(?<=[a-z\"'”’])\.(?=[A-Z\"'“‘])|(?<=[^\W\d_]),(?=[^\W\d_])"
    r"|(?<=[^\W_])(?:--+|[-–—~])(?=[^\W\d_])|(?<=[^\W_])[:<>=/](?=[^\W\d_]))"
)
_CLITIC = re.compile(r"(?i)([^\W\d_]+?)(n['’]t|['’](?:ll|re|ve|d|m|s|em))")
_WHOLE = re.compile(r"(?:https?|ftp)://\S+|www\.\S+|(?:[A-Za-z]\.){2,}|[\w.+-]+@[\w-]+\.[\w.-]+")
_ABBREVIATIONS = frozenset(
    [
        "e.g.",
        "i.e.",
        "etc.",
        "vs.",
        "Mr.",
        "Mrs.",
        "Ms.",
        "Dr.",
        "Prof.",
        "St.",
        "Jr.",
        "Co.",
        "Corp.",
        "Inc.",
        "Ltd.",
        "a.m.",
        "p.m.",
        "cf.",
    ]
)

# Longer pieces are data; the longest of the closing shapes is a run of dots.
_SHORT_CHARACTERS, _CLOSING_CHARACTERS = 400, 16


class _Pieces(dict[str, tuple[str, ...]]):
    """A piece between spaces → its words."""

    MAX_PIECES = 100_000

    def __missing__(self, piece: str) -> tuple[str, ...]:
        words = tuple(_cut(piece))
        if len(piece) <= _SHORT_CHARACTERS:
            if len(self) >= self.MAX_PIECES:
                self.clear()
            self[piece] = words
        return words


_pieces = _Pieces()


def words_of(text: str) -> list[str]:
    """The text's words and punctuation marks, in order."""
    return list(chain.from_iterable(map(_pieces.__getitem__, text.split())))


def _cut(piece: str) -> Iterable[str]:
    """Linear in the length of the piece: its ends move, and what looks at all of it looks at short ones only."""
    if piece.isalpha():
        return (piece,)
    before: list[str] = []
    after: list[str] = []
    start, end = 0, len(piece)
    while start < end:
        is_short = end - start <= _SHORT_CHARACTERS
        if is_short and (piece[start:end] in _ABBREVIATIONS or _is_whole(piece, start, end)):
            before.append(piece[start:end])
            break
        if opening := _OPENING.match(piece, start, end):
            before.append(opening[0])
            start = opening.end()
        elif closing := _CLOSING.search(piece, max(start, end - _CLOSING_CHARACTERS), end):
            after.append(closing[0])
            end = closing.start()
        elif is_short and (clitic := _CLITIC.fullmatch(piece, start, end)):
            after.append(clitic[2])
            end = clitic.end(1)
        else:
            before += filter(None, _INFIX.split(piece[start:end]))
            break
    return (*before, *reversed(after))


def _is_whole(piece: str, start: int, end: int) -> bool:
    return piece[end - 1] not in ",;:!?\"')]}>" and _WHOLE.fullmatch(piece, start, end) is not None


class Kind(NamedTuple):
    """What the rules ask of one word."""

    n_characters: int
    is_symbol: bool  # no letter and no digit
    has_letter: bool
    is_punctuation: bool


class _Kinds(dict[str, Kind]):
    MAX_WORDS = 100_000

    def __missing__(self, word: str) -> Kind:
        if len(self) >= self.MAX_WORDS:
            self.clear()
        has_letter = any(map(str.isalpha, word))
        is_symbol = not has_letter and not any(map(str.isalnum, word))
        is_punctuation = is_symbol and all(category(character)[0] == "P" for character in word)
        self[word] = kind = Kind(len(word), is_symbol, has_letter, is_punctuation)
        return kind


kinds = _Kinds()
