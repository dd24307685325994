"""The environment of a side that runs in a process of its own: as it is on any machine where this is installed."""

from __future__ import annotations

import os


def environment() -> dict[str, str]:
    """This one, but compiled modules are kept: else each process compiles all that it imports, for seconds."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
