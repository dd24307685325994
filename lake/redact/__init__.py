"""Personal data and secrets by pattern: replaced by typed placeholders, counted, never kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from lake.redact.contact import EMAIL, PHONE
from lake.redact.identity import NATIONAL_ID
from lake.redact.keys import KEY
from lake.redact.leaks import count_leaks
from lake.redact.network import IP
from lake.redact.payment import CARD, IBAN
from lake.redact.shape import Shape, may_hold, replace, skeleton_of

__all__ = ["KINDS", "Kind", "count_leaks", "redact"]

Kind = Literal["key", "email", "iban", "card", "national_id", "ip", "phone"]
# In the order in which they are replaced: what is longer and surer first, so that no part of it passes for another kind.
KINDS: tuple[Kind, ...] = get_args(Kind)

_SHAPES: dict[str, tuple[Shape, ...]] = {
    "key": KEY,
    "email": EMAIL,
    "iban": IBAN,
    "card": CARD,
    "national_id": NATIONAL_ID,
    "ip": IP,
    "phone": PHONE,
}
# Each pass finds what the one before has uncovered, which is one kind next to another: more passes than kinds are not
# needed by any text that was not made for it.
_MAX_PASSES = 8


def redact(text: str, kinds: Iterable[str]) -> tuple[str, dict[str, int]]:
    """Replace personal data by `<EMAIL>`, `<PHONE>` and so on. Returns the text and the count of each kind found.

    `kinds` are among KINDS, in any order; ValueError for others. Linear in the length of the text.
    """
    wanted = set(kinds)
    if unknown := wanted.difference(KINDS):
        raise ValueError(f"kinds={sorted(unknown)}, expected some of {', '.join(KINDS)}")
    shapes = [(kind, _SHAPES[kind]) for kind in KINDS if kind in wanted]
    needs_skeleton = any(shape.skeleton for _, several in shapes for shape in several)
    counts: dict[str, int] = {}
    for _ in range(_MAX_PASSES):
        before, skeleton = text, skeleton_of(text) if needs_skeleton else b""
        for kind, several in shapes:
            for shape in several:
                if may_hold(shape, text, skeleton):
                    text, n = replace(shape, text)
                    if n:
                        counts[kind] = counts.get(kind, 0) + n
        if text is before or text == before:
            break
    return text, counts
