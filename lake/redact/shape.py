"""One shape of personal data: how it looks, what a text must have to hold it at all, and how it is replaced."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import NamedTuple

_SKELETON = bytes.maketrans(
    (string.ascii_uppercase + string.digits).encode(), b"A" * len(string.ascii_uppercase) + b"0" * len(string.digits)
)
# After a match, the next one is looked for right where it ends, in so many characters and with a margin for lookaheads.
_WINDOW, _MARGIN = 512, 32


class Shape(NamedTuple):
    """A pattern and its typed placeholder.

    `marks`: groups of which a text must hold one each; looking for them is 20 times faster than the pattern is.
    `skeleton`: what it must hold once spaces and hyphens are gone, capitals are `A` and digits are `0`.
    `hint`: a pattern that is found sooner, and in every text that this one is found in.
    `accepts`: whether a match is what it looks like (a checksum, a public address); None takes every match.
    """

    pattern: re.Pattern[str]
    replacement: str
    marks: tuple[tuple[str, ...], ...] = ()
    skeleton: bytes = b""
    accepts: Callable[[re.Match[str]], bool] | None = None
    hint: re.Pattern[str] | None = None


def skeleton_of(text: str) -> bytes:
    """The text's capitals as `A` and digits as `0`, spaces and hyphens left out."""
    return text.encode("ascii", "replace").translate(_SKELETON, b" -")


def may_hold(shape: Shape, text: str, skeleton: bytes) -> bool:
    """Whether the pattern has anything to match; most texts are told from their marks alone."""
    if shape.skeleton not in skeleton or not all(any(mark in text for mark in group) for group in shape.marks):
        return False
    return shape.hint is None or shape.hint.search(text) is not None


def replace(shape: Shape, text: str) -> tuple[str, int]:
    """Replace every match that is accepted. Returns the text and how many there were.

    What is replaced may have hidden the beginning of what stands right after it, as the patterns look behind them.
    So that place is looked at again, as it now is: chains of any length take one pass.
    """
    pieces: list[str] = []
    n, end, match = 0, 0, _search(shape, text, 0)
    while match:
        pieces += (text[end : match.start()], match.expand(shape.replacement))
        n, end = n + 1, match.end()
        while chained := _right_after(shape, text, end):
            pieces.append(chained.expand(shape.replacement))
            n, end = n + 1, end + chained.end() - 1
        match = _search(shape, text, end)
    return "".join((*pieces, text[end:])), n


def _search(shape: Shape, text: str, start: int) -> re.Match[str] | None:
    match = shape.pattern.search(text, start)
    while match and shape.accepts and not shape.accepts(match):
        match = shape.pattern.search(text, match.start() + 1)
    return match


def _right_after(shape: Shape, text: str, end: int) -> re.Match[str] | None:
    window = ">" + text[end : end + _WINDOW]
    match = shape.pattern.match(window, 1)
    if match is None or (end + _WINDOW < len(text) and match.end() > _WINDOW - _MARGIN):
        return None
    return match if shape.accepts is None or shape.accepts(match) else None
