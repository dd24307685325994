"""What objects in the cluster are called, and how those of one installation are told from all others."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from lake.errors import TidemillError

Json = dict[str, Any]

FIELD_MANAGER = "tidemill"
MODEL, VERSION, DEFINITION = "tidemill/model", "tidemill/version", "tidemill/definition"
LEASE_TOKEN = "tidemill/lease-token"  # noqa: S105 it counts holders, and gives no access
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
# Pods add up to 17 characters to the name of their Deployment, and have 63.
_MAX_NAME = 45


def object_name(installation: str, *parts: str) -> str:
    """A name that Services may have, too (RFC 1035). A hash keeps (a-b, c) and (a, b-c) apart."""
    told = re.sub(r"[^a-z0-9-]", "-", "-".join((installation, *parts)).lower())
    unique = hashlib.sha256("/".join(parts).encode()).hexdigest()[:6]
    return f"{told[: _MAX_NAME - 7].rstrip('-')}-{unique}"


def our_labels(installation: str) -> dict[str, str]:
    """What every object of an installation carries; nothing without them is ever changed or deleted."""
    return {"app.kubernetes.io/managed-by": FIELD_MANAGER, "app.kubernetes.io/instance": installation}


def labels(installation: str, model: str, version: str | None = None) -> dict[str, str]:
    """Raises TidemillError for a name that no label can hold."""
    told = {MODEL: model} if version is None else {MODEL: model, VERSION: version}
    for value in told.values():
        if not _LABEL.fullmatch(value):
            raise TidemillError(
                f"Kubernetes object of {model}",
                expected="names of at most 63 letters, digits, dots, dashes and underscores, as labels have them",
                got=repr(value),
                remedy="rename the model or the version",
            )
    return {**our_labels(installation), **told}


def is_ours(found: Json, installation: str) -> bool:
    carried = found["metadata"].get("labels") or {}
    return our_labels(installation).items() <= carried.items()


def annotation(found: Json, name: str) -> str:
    """Empty when there is none."""
    return str((found["metadata"].get("annotations") or {}).get(name, ""))


def definition_of(manifest: Json) -> str:
    """Changes with anything that the manifest says."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
