"""What pods and conditions are taken to say."""

from __future__ import annotations

from typing import Any

import pytest

from bentos.targets.kubernetes.conditions import word_on
from bentos.targets.kubernetes.pods import last_message, sighting
from bentos.targets.target import Sighting

Json = dict[str, Any]
DEFINITION = "tidemill/definition"
DEPLOYMENT: Json = {"metadata": {"uid": "d", "labels": {DEFINITION: "new"}}, "status": {}}
RUNNING: Json = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def pod(name: str, state: Json | None, ready: str = "False", since: str = "", restarts: int = 0, **told: Any) -> Json:
    containers = [{"name": "model", "state": state, "restartCount": restarts}] if state is not None else []
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": since}
    return {
        "metadata": {"name": name, "uid": name, "labels": {DEFINITION: told.pop("definition", "new")}},
        "status": {"phase": "Running", "conditions": [condition], "containerStatuses": containers, **told},
    }


@pytest.mark.parametrize(
    ("state", "probe"),
    [
        (None, "slow"),  # not scheduled yet
        ({"waiting": {"reason": "ContainerCreating"}}, "slow"),
        (RUNNING, "refused"),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, "refused"),
        ({"waiting": {"reason": "ImagePullBackOff"}}, "refused"),
        ({"terminated": {"exitCode": 137}}, "refused"),
    ],
)
def test_a_pod_that_is_not_ready(state: Json | None, probe: str) -> None:
    assert sighting(DEPLOYMENT, [pod("a", state)]) == Sighting("a/0", probe)  # type: ignore[arg-type]


def test_the_pod_that_is_ready_longest_speaks() -> None:
    pods = [pod("a", RUNNING, "True", "2026-01-02"), pod("b", RUNNING, "True", "2026-01-01"), pod("c", RUNNING)]
    assert sighting(DEPLOYMENT, pods) == Sighting("b/0", "ready")


def test_a_restart_changes_the_identity() -> None:
    assert sighting(DEPLOYMENT, [pod("a", RUNNING, "True", restarts=2)]) == Sighting("a/2", "ready")


def test_pods_of_another_definition_say_nothing() -> None:
    assert sighting(DEPLOYMENT, [pod("a", RUNNING, "True", definition="old")]) == Sighting("d", "slow")


def test_a_deployment_that_may_make_no_pods_has_no_process() -> None:
    refused = {"status": {"conditions": [{"type": "ReplicaFailure", "status": "True"}]}}
    assert sighting({**DEPLOYMENT, **refused}, []) == Sighting(None, "refused")


def test_an_evicted_pod_refuses() -> None:
    assert sighting(DEPLOYMENT, [pod("a", None, phase="Failed")]).probe == "refused"


def test_a_container_tells_why_it_waits() -> None:
    assert last_message(pod("a", {"waiting": {"reason": "ErrImagePull", "message": "no\nsuch image"}})) == "such image"
    assert last_message(pod("a", {"waiting": {"reason": "ContainerCreating"}})) == "ContainerCreating"
    assert last_message(pod("a", RUNNING)) is None
    unscheduled = pod("a", None)
    unscheduled["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes fit"}]
    assert last_message(unscheduled) == "0/3 nodes fit"


def condition(kind: str, status: str, generation: int = 2) -> Json:
    return {"type": kind, "status": status, "observedGeneration": generation, "reason": f"Is{status}"}


def route(*conditions: Json, gateway: str = "tidemill") -> Json:
    parents = [{"parentRef": {"name": gateway}, "conditions": list(conditions)}]
    return {"kind": "HTTPRoute", "metadata": {"generation": 2}, "status": {"parents": parents}}


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (route(condition("Accepted", "True"), condition("ResolvedRefs", "True")), "accepted"),
        (route(condition("Accepted", "True")), "silent"),
        (route(condition("Accepted", "True", 1), condition("ResolvedRefs", "True")), "silent"),  # of an earlier one
        (route(condition("Accepted", "False", 1), condition("ResolvedRefs", "True")), "silent"),
        (route(condition("Accepted", "True"), condition("ResolvedRefs", "False")), "refused"),
        (route(condition("Accepted", "Unknown"), condition("ResolvedRefs", "True")), "silent"),
        (route(condition("Accepted", "True"), condition("ResolvedRefs", "True"), gateway="another"), "silent"),
        ({"kind": "HTTPRoute", "metadata": {"generation": 1}}, "silent"),
    ],
)
def test_the_word_of_the_gateway(found: Json, word: str) -> None:
    assert word_on(found, "tidemill")[0] == word


def test_a_policy_is_accepted_although_another_ancestor_only_tells_of_a_merge() -> None:
    """As Envoy Gateway 1.9 says it of a policy that is merged with that of the Gateway."""
    ancestors = [{"conditions": [condition("Merged", "True")]}, {"conditions": [condition("Accepted", "True")]}]
    policy = {"kind": "BackendTrafficPolicy", "metadata": {"generation": 2}, "status": {"ancestors": ancestors}}
    assert word_on(policy)[0] == "accepted"
