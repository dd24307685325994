"""What a gateway's controller says of a route or a policy, judged for the present generation. Pure."""

from __future__ import annotations

from typing import Literal

from bentos.targets.kubernetes.names import Json

Word = Literal["accepted", "refused", "silent"]

_NEEDED = {"HTTPRoute": ("Accepted", "ResolvedRefs"), "BackendTrafficPolicy": ("Accepted",)}


def word_on(found: Json, gateway: str | None = None) -> tuple[Word, str]:
    """The word on an object and why. A route is judged for its parent `gateway`, a policy for all that it applies to.

    Conditions of an earlier generation are silence: nobody has looked at this one yet.
    """
    entries = _entries(found, gateway)
    needed, generation = _NEEDED[found["kind"]], found["metadata"].get("generation", 0)
    missing = set(needed)
    for entry in entries:
        for condition in entry.get("conditions") or ():
            if condition.get("observedGeneration", 0) < generation or condition["type"] not in needed:
                continue
            if condition["status"] == "False":
                return "refused", f"{condition['type']}: {condition.get('reason')}: {condition.get('message', '')}"
            if condition["status"] == "True":
                missing.discard(condition["type"])
    return ("silent", f"no word on {', '.join(sorted(missing))}") if missing else ("accepted", "accepted")


def _entries(found: Json, gateway: str | None) -> list[Json]:
    status = found.get("status") or {}
    if found["kind"] != "HTTPRoute":
        return list(status.get("ancestors") or ())
    return [entry for entry in status.get("parents") or () if entry["parentRef"]["name"] == gateway]
