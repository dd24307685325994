"""What a version's pods tell of it: one look at a replica. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from bentos.health import Probe
from bentos.targets.kubernetes.names import DEFINITION, Json
from bentos.targets.kubernetes.workloads import CONTAINER
from bentos.targets.target import Sighting

# A container that waits for one of these has failed; one that waits for anything else is on its way.
_FAILED = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)


def sighting(deployment: Json, pods: Iterable[Json]) -> Sighting:
    """One look at the pods that the Deployment's present definition has made; `pods` may be those of older ones, too.

    One pod speaks for all, so that a restart of it shows: the one that is ready longest, else the one that restarted
    most. While there is no pod, the Deployment speaks: one that may not make pods (a quota, say) has no process.
    """
    definition = deployment["metadata"]["labels"].get(DEFINITION)
    current = [pod for pod in pods if pod["metadata"]["labels"].get(DEFINITION) == definition]
    if not current:
        return Sighting(None, "refused") if _may_not(deployment) else Sighting(deployment["metadata"]["uid"], "slow")
    speaker = speaker_of(current)
    return Sighting(f"{speaker['metadata']['uid']}/{_restarts(speaker)}", _probe(speaker))


def speaker_of(pods: Iterable[Json]) -> Json:
    return min(
        pods,
        key=lambda pod: (not _is_ready(pod), _ready_since(pod) if _is_ready(pod) else "", -_restarts(pod), _name(pod)),
    )


def last_message(pod: Json) -> str | None:
    """Why a container does not run, as the kubelet says; None when it runs, or nobody has said anything."""
    found = _container(pod)
    for state in (found.get("state") or {}, found.get("lastState") or {}):
        for kind in ("waiting", "terminated"):
            told = state.get(kind) or {}
            words = told.get("message") or told.get("reason")
            if words:
                return str(words).strip().splitlines()[-1]
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((one["message"] for one in conditions if one.get("status") == "False" and one.get("message")), None)


def has_log(pod: Json) -> bool:
    state, last = _container(pod).get("state") or {}, _container(pod).get("lastState") or {}
    return bool({"running", "terminated"} & (state.keys() | last.keys()))


def _probe(pod: Json) -> Probe:
    if _is_ready(pod):
        return "ready"
    state = _container(pod).get("state") or {}
    if "terminated" in state or (state.get("waiting") or {}).get("reason") in _FAILED:
        return "refused"
    if pod.get("status", {}).get("phase") == "Failed":
        return "refused"
    # The kubelet has asked it several times by now: not ready is what it answers.
    return "refused" if "running" in state else "slow"


def _may_not(deployment: Json) -> bool:
    return any(
        one.get("type") == "ReplicaFailure" and one.get("status") == "True"
        for one in deployment.get("status", {}).get("conditions") or ()
    )


def _is_ready(pod: Json) -> bool:
    return _condition(pod).get("status") == "True"


def _ready_since(pod: Json) -> str:
    return str(_condition(pod).get("lastTransitionTime", ""))


def _condition(pod: Json) -> Json:
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == "Ready"), {})


def _container(pod: Json) -> Json:
    found = pod.get("status", {}).get("containerStatuses") or ()
    return next((one for one in found if one["name"] == CONTAINER), {})


def _restarts(pod: Json) -> int:
    return int(_container(pod).get("restartCount", 0))


def _name(pod: Json) -> str:
    return str(pod["metadata"]["name"])
