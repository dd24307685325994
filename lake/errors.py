"""One error type that a user can act on: where it went wrong, what was expected, what was found, what to do."""

from __future__ import annotations

from collections.abc import Callable


class TidemillError(Exception):
    """An error with a remedy, printed by the command line without a traceback.

    The message reads ``where: expected …, got …; remedy``.
    """

    def __init__(self, where: str, *, expected: str, got: str, remedy: str) -> None:
        super().__init__(f"{where}: expected {expected}, got {got}; {remedy}")
        self.where, self.expected, self.got, self.remedy = where, expected, got, remedy

    def __reduce__(self) -> tuple[Callable[..., TidemillError], tuple[type[TidemillError], dict[str, str]]]:
        told = {"where": self.where, "expected": self.expected, "got": self.got, "remedy": self.remedy}
        return _again, (type(self), told)


def _again(kind: type[TidemillError], told: dict[str, str]) -> TidemillError:
    """The error as another process reads it: exceptions are pickled by position, ours have names."""
    return kind(**told)


class RecipeError(TidemillError):
    """A recipe does not validate. `where` names the file and the field."""


class StorageError(TidemillError):
    """The object store refused or could not be reached: missing bucket, wrong credentials, no network, full disk."""


class SourceChanged(StorageError):
    """An object was overwritten or deleted between being listed and being read."""


class StageTakenOver(TidemillError):
    """A stage was given to another process, as this one seemed dead; what this one has written is swept."""


class CheckFailed(TidemillError):
    """A drop did not meet its expectations. The champion keeps serving."""


class GateRejected(TidemillError):
    """A challenger did not win against the champion (or the base model)."""
