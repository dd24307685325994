"""What a worker process raised, out of what its runner tells of it.

Within one process Beam chains the exception itself. Between processes only its text travels: a traceback whose last line
is `lake.errors.StorageError: …`, with a note of Beam's behind it.
"""

from __future__ import annotations

import re

import lake.errors
from lake.errors import TidemillError

_TOLD = re.compile(
    r"^\W*lake\.errors\.(?P<kind>\w+): (?P<where>.+?): expected (?P<expected>.+?), got (?P<got>.+?); "
    r"(?P<remedy>.+?)(?: \[while running .*)?$",
    re.MULTILINE,
)
# In the words of the local runner, of Prism and of Flink.
_DIED = re.compile(r"Channel closed prematurely|worker disconnected|TaskManager with id .* is no longer reachable")


def worker_error(error: BaseException) -> TidemillError | None:
    """The error that the caller can act on behind one of Beam's, or None when the job has failed by a fault of its own.

    Looks at the chain of causes first, then at the text.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TidemillError):
            return cause
        cause = cause.__cause__ or cause.__context__
    told = _TOLD.search(str(error))
    if told is not None:
        kind = getattr(lake.errors, told["kind"], TidemillError)
        return kind(told["where"], expected=told["expected"], got=told["got"], remedy=told["remedy"])
    if _DIED.search(str(error)):
        return TidemillError(
            "the preparation job",
            expected="its workers to live until it ends",
            got="one that died",
            remedy="the drop is tried again; if it recurs, look for a lack of memory and lower the number of workers",
        )
    return None
