"""What comes out of an object: documents, and dead letters with a reason."""

from __future__ import annotations

from dataclasses import dataclass

_DETAIL_CHARACTERS = 200


@dataclass(frozen=True)
class Extracted:
    """A document, or a dead letter when `reason` is set.

    `position` is unique in its object: `line:N`, `row:N`, `record:N`, `chapter:N`, `page:N`, `byte:N` or `object`, with
    `,part:N` after it (`part:N` alone for a whole object) where a long document was split, and `entry:NAME,` before it
    for a file in an archive.
    """

    position: str
    text: str = ""
    given_id: str | None = None
    reason: str | None = None
    detail: str = ""


class Unreadable(Exception):
    """The object, or what is left of it from `position` on, cannot be read: its dead letter."""

    def __init__(self, reason: str, detail: object = "", position: str = "object") -> None:
        super().__init__(reason, detail, position)
        self.reason, self.detail, self.position = reason, shorten(detail), position

    @property
    def letter(self) -> Extracted:
        return Extracted(self.position, reason=self.reason, detail=self.detail)


class BudgetSpent(Unreadable):
    """The object unpacks to more than the recipe allows: nothing else in it is read either."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__("too_large", f"more than {max_bytes} bytes when unpacked")


class Bomb(BudgetSpent):
    """The object unpacks to far more than it holds."""

    def __init__(self, max_ratio: float) -> None:
        Unreadable.__init__(self, "zip_bomb", f"unpacks to more than {max_ratio:g} times its size")


def shorten(told: object) -> str:
    """One line that any file can hold: JSON lets single surrogates through, which UTF-8 does not."""
    line = " ".join(str(told)[: 10 * _DETAIL_CHARACTERS].split())[:_DETAIL_CHARACTERS]
    return line.encode("utf-8", "replace").decode()


def inside(prefix: str, position: str) -> str:
    """The position of a thing within the thing at `prefix`."""
    return prefix if position == "object" else position if prefix == "object" else f"{prefix},{position}"
