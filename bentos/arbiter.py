"""Talk to the arbiter of circus, the supervisor that `tidemill up` runs."""

from __future__ import annotations

import time
from typing import Any

from lake.errors import TidemillError
from lake.settings import Settings

# circus refuses what would change watchers while it looks after them, which it does every second.
_BUSY = "already running"
CALL_TIMEOUT_S = 3.0


class SupervisorError(TidemillError):
    """The supervisor does not answer, or refused a command."""


def ask(settings: Settings, command: str, *, timeout_s: float | None = None, **properties: Any) -> dict[str, Any]:
    """One command and its answer. A command that meets a busy arbiter is sent again for as long as `timeout_s`
    (CALL_TIMEOUT_S unless told otherwise).

    Raises SupervisorError when the arbiter does not answer in time, or refuses.
    """
    from circus.client import CircusClient
    from circus.exc import CallError

    timeout_s = CALL_TIMEOUT_S if timeout_s is None else timeout_s
    deadline = time.monotonic() + timeout_s
    while True:
        # A client for each: one that timed out would deliver its command much later.
        client = CircusClient(endpoint=settings.supervisor_endpoint, timeout=timeout_s)
        try:
            answer: dict[str, Any] = client.send_message(command, **properties)
        except CallError as error:
            answer = {"status": "error", "reason": str(error)}
        finally:
            client.stop()
        if _BUSY not in str(answer.get("reason")) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    if answer.get("status") == "error":
        raise SupervisorError(
            f"supervisor at {settings.supervisor_endpoint}",
            expected=f"to {command} {properties.get('name', '')}".rstrip(),
            got=str(answer.get("reason")),
            remedy=f"start it with 'tidemill up'; its log is {settings.home}/logs/supervisor.log",
        )
    return answer
