"""Where the time goes: what of ours each thread that works is in, looked at every few milliseconds.

Not cProfile, which charges small functions by the call: here nothing is slowed down but by the looking.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Self

_ROOT = str(Path(__file__).parent.parent)
_OURS = (f"{_ROOT}/beam_jobs/", f"{_ROOT}/lake/")
_BEAM_WORKS = "bundle_processor.py"  # whatever is called by it is work, if not ours then Beam's
_WAITS = ("/threading.py", "/queue.py", "/_base.py", "/selectors.py")
BEAM = "Beam"
INTERVAL_S = 0.004
# Who waits for the interpreter's lock gets it when it is let go: in numpy, more often than not. By default a thread that
# holds on to it may do so for 5 ms; then what is looked at would be numpy too often, and plain Python too seldom.
_SWITCH_S = 1e-5


class Sampled:
    """Counts samples by `(module, function)` while the block runs: the innermost frame of ours, or Beam's."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        sys.setswitchinterval(self._switch_s)

    def _look(self) -> None:
        own = threading.get_ident()
        while not self._ended.wait(INTERVAL_S):
            for thread, frame in sys._current_frames().items():
                place = None if thread == own else place_of(frame)
                if place:
                    self.counts[place] += 1


def place_of(frame: FrameType | None) -> tuple[str, str] | None:
    """The innermost module and function of ours; Beam's when it is at work and nothing of ours is; else None."""
    in_beam, waits = False, frame is not None and frame.f_code.co_filename.endswith(_WAITS)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_OURS):
            module = path[len(_ROOT) + 1 : -len(".py")].replace("/", ".")
            if module == "beam_jobs.prepare":  # it runs the runner, or waits for what is done elsewhere
                return None if waits else (BEAM, "runner")
            return module, frame.f_code.co_name
        in_beam = in_beam or path.endswith(_BEAM_WORKS)
        frame = frame.f_back
    return (BEAM, "shuffle, bundles") if in_beam else None
