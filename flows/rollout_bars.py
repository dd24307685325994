"""Bars of text: an interval against its margin, a share against its plan. Pure; ASCII where a terminal knows no more."""

from __future__ import annotations

import math
from typing import NamedTuple

from lake.recipe.rollout_metrics import metric
from lake.records import CheckResult


class Glyphs(NamedTuple):
    """What a bar is drawn with: interval, estimate, margin, no difference, cut ends, full and empty share."""

    interval: str
    estimate: str
    margin: str
    none: str
    cut_low: str
    cut_high: str
    full: str
    empty: str


UNICODE = Glyphs("─", "●", "┃", "┊", "◄", "►", "█", "░")
ASCII = Glyphs("-", "o", "|", ":", "<", ">", "#", ".")


def interval_bar(check: CheckResult, width: int = 24, glyphs: Glyphs = UNICODE) -> str:
    """A check's interval on an axis from better to worse, `width` characters wide.

    No difference is at a third of it, the margin at two thirds; what lies beyond the ends is cut, and marked so.
    Factors are on a logarithmic axis.
    """
    is_ratio = metric(check.metric).unit == "ratio"

    def place(value: float | None) -> float | None:
        """In margins: 0 is no difference, 1 is the margin."""
        if value is None:
            return None
        told = math.log(max(value, 1e-9)) if is_ratio else value
        allowed = math.log(check.margin) if is_ratio else check.margin
        return told / (allowed if allowed > 0 else 0.05)

    def column(at: float) -> int:
        return min(width - 1, max(0, round((at + 1) / 3 * (width - 1))))

    line = [" "] * width
    effect, lower, upper = place(check.effect), place(check.lower), place(check.upper)
    if effect is not None:
        low, high = -1.0 if lower is None else lower, 2.0 if upper is None else upper
        for number in range(column(low), column(high) + 1):
            line[number] = glyphs.interval
        if low < -1 or lower is None:
            line[0] = glyphs.cut_low
        if high > 2 or upper is None:
            line[-1] = glyphs.cut_high
    line[column(0.0)] = glyphs.none
    line[column(1.0 if check.margin != (1 if is_ratio else 0) else 0.0)] = glyphs.margin
    if effect is not None and -1 <= effect <= 2:
        line[column(effect)] = glyphs.estimate
    return "".join(line)


def share_bar(share: float, width: int = 40, glyphs: Glyphs = UNICODE) -> str:
    full = round(min(1.0, max(0.0, share)) * width)
    return glyphs.full * full + glyphs.empty * (width - full)


def spelt(text: str, glyphs: Glyphs) -> str:
    """The text in the characters that a terminal knows."""
    if glyphs is not ASCII:
        return text
    return text.translate(_SPELT).encode("ascii", "replace").decode()


_SPELT = str.maketrans({"×": "x", "→": "->", "–": "-", "≥": ">=", "…": "..."})
