"""A standing problem is told once, not at every look."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

# The same problem a second later may tell the time, or another attempt's number.
_NUMBERS = re.compile(r"\d+")


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
            return
        told = _NUMBERS.sub("#", str(error))
        if self._open.get(what) != told:
            self._open[what] = told
            self._log.error("%s: %s", what, error)

    def attempt(self, what: str, action: Callable[[], object]) -> None:
        """Do it; a failure is told, and ends nothing else."""
        try:
            action()
        except Exception as error:
            self.tell(what, error)
        else:
            self.tell(what, None)
