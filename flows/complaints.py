"""A standing problem is told once, not at every look."""

from __future__ import annotations

import logging
from collections.abc import Callable


class Complaints:
    """Logs each problem when it begins, when it changes, and when it is over."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._open: dict[str, str] = {}

    def tell(self, what: str, error: Exception | None) -> None:
        """`None`: `what` is well."""
        if error is None:
            if self._open.pop(what, None) is not None:
                self._log.info("%s: well again", what)
        elif self._open.get(what) != str(error):
            self._open[what] = str(error)
            self._log.error("%s: %s", what, error)

    def attempt(self, what: str, action: Callable[[], object]) -> None:
        """Do it; a failure is told, and ends nothing else."""
        try:
            action()
        except Exception as error:
            self.tell(what, error)
        else:
            self.tell(what, None)
