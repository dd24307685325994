"""Clock steps: a `serve` whose wall clock jumps, by libfaketime. Its monotonic clock goes on, as Linux' does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.world import World


class Clock:
    """`refused` says why clocks cannot be stepped here; None when they can."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._file = world.folder / "clock"
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        self._library = str(found[0]) if found else ""
        self.refused = None if found else "libfaketime is not installed: apt-get install faketime"

    @contextmanager
    def instead_of_serve(self) -> Iterator[None]:
        """While the block takes, `serve` is one whose clock can be stepped."""
        self.step(0)
        self._world.restart_serve(
            {
                "LD_PRELOAD": self._library,
                "FAKETIME_TIMESTAMP_FILE": str(self._file),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_RESET": "1",
            }
        )
        yield
        self._world.restart_serve({})

    def step(self, seconds: int) -> None:
        """Set the clock to so many seconds after the true time."""
        partial = self._file.with_suffix(".partial")
        partial.write_text(f"{seconds:+d}\n")
        partial.replace(self._file)
