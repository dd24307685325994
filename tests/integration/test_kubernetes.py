"""The Kubernetes target with its real client against an API over HTTP: one in memory, and a real API server if built.

No cluster runs here: no scheduler, kubelet, gateway controller or Envoy. Tests write what those would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightkube
import pytest
from lightkube.types import PatchType

from bentos.routing import Endpoint, ModelRoute, Routing
from bentos.targets.kubernetes import KubernetesError, KubernetesSettings, KubernetesTarget
from bentos.targets.kubernetes.cluster import KINDS
from bentos.targets.kubernetes.names import LEASE_TOKEN, object_name
from bentos.targets.kubernetes.traffic import RouteRefused
from bentos.targets.target import LeaseLost
from lake.errors import TidemillError
from lake.ledger.rollout_state import Replica
from tests.kube_apiserver import kube_apiserver
from tests.kubernetes_api import NAMESPACE, Api, memory_api
from tests.kubernetes_controllers import Calls, GatewayController, Killed, make_pod, pod_status, running, set_pod

pytestmark = pytest.mark.integration

Json = dict[str, Any]
MAIN = object_name("tidemill", "docs")
SHADOW = object_name("tidemill", "docs", "shadow")
ONE, TWO = (object_name("tidemill", "docs", version) for version in ("v1", "v2"))


@dataclass
class World:
    api: Api
    gateway: GatewayController
    client: lightkube.Client

    def target(self, calls: Calls | None = None, **settings: Any) -> KubernetesTarget:
        told = {"confirm_timeout_s": 5.0, "refused_for_s": 0.1, **settings}
        client = self.api.client(calls or Calls(self.api.transport()))
        return KubernetesTarget(KubernetesSettings(namespace=NAMESPACE, **told), client)

    def calls(self, **kill: Any) -> Calls:
        return Calls(self.api.transport(), **kill)

    def all(self, kind: str) -> dict[str, Json]:
        found = [one.to_dict() for one in self.client.list(KINDS[kind])]
        return {one["metadata"]["name"]: one for one in found}

    def clear(self) -> None:
        for kind in KINDS:
            for name in self.all(kind):
                self.client.delete(KINDS[kind], name, grace_period=0)


@pytest.fixture(scope="module")
def real_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with kube_apiserver(tmp_path_factory.mktemp("kubernetes")) as api:
        yield api


@pytest.fixture(params=["memory", "kube-apiserver"])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    if request.param == "memory":
        with memory_api() as (api, _):
            yield api
    else:
        yield request.getfixturevalue("real_api")


@pytest.fixture
def world(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("bentos.targets.kubernetes.traffic._POLL_S", 0.01)
    with running(GatewayController(api.client())) as gateway:
        made = World(api, gateway, api.client())
        made.clear()
        yield made


def replica(version: str, **environment: str) -> Replica:
    return Replica(model="docs", version=version, tag=f"docs:{version}", port=3100, environment=environment)


def routing(*versions: str, **route: Any) -> Routing:
    """Of the model `docs`, whose champion is the first of the versions."""
    endpoints = tuple(Endpoint(model="docs", version=version, port=3100) for version in versions)
    route = {"model": "docs", "champion": versions[0], **route}
    return Routing(routes=(ModelRoute(**route),), endpoints=endpoints)


SHADOWED = routing("v1", "v2", challenger="v2", stage="shadow", share=0.25)
SPLIT = routing("v1", "v2", challenger="v2", stage="ab", share=0.5, sticky=True)
CANARY = routing("v1", "v2", challenger="v2", stage="canary", share=0.05)
PROMOTED = routing("v2", "v1")
BOTH = [replica("v1"), replica("v2")]


def weights(route: Json) -> list[list[tuple[str, int]]]:
    return [[(to["name"], to["weight"]) for to in rule["backendRefs"]] for rule in route["spec"]["rules"][:2]]


def filters(route: Json, kind: str) -> list[Json]:
    return [one for rule in route["spec"]["rules"] for one in rule["filters"] if one["type"] == kind]


def test_replicas_become_deployments_and_services_once(world: World) -> None:
    calls = world.calls()
    target = world.target(calls)
    assert target.reconcile(BOTH, None) == {}
    assert calls.writes == [
        ("PATCH", f"services/{ONE}"),
        ("PATCH", f"deployments/{ONE}"),
        ("PATCH", f"services/{TWO}"),
        ("PATCH", f"deployments/{TWO}"),
    ]
    current = target.reconcile(BOTH, set())
    assert len(calls.writes) == 4
    assert {key: found.probe for key, found in current.items()} == {("docs", "v1"): "slow", ("docs", "v2"): "slow"}


def test_another_environment_changes_the_pods_and_nothing_else(world: World) -> None:
    calls = world.calls()
    target = world.target(calls)
    target.reconcile([replica("v1", A="1", B="2")], None)
    assert target.reconcile([replica("v1", B="3")], None) == {}
    assert calls.writes[2:] == [("PATCH", f"deployments/{ONE}")]
    container = world.all("Deployment")[ONE]["spec"]["template"]["spec"]["containers"][0]
    told = {one["name"]: one["value"] for one in container["env"]}
    assert "A" not in told and told["B"] == "3"


def test_each_stage_changes_the_one_route(world: World) -> None:
    target = world.target()
    target.reconcile(BOTH, None)
    target.apply(routing("v1"), 1)
    assert weights(world.all("HTTPRoute")[MAIN]) == [[(ONE, 10_000)]] * 2
    target.apply(SHADOWED, 1)
    routes = world.all("HTTPRoute")
    mirrors = [one["requestMirror"] for one in filters(routes[MAIN], "RequestMirror")]
    assert [(one["backendRef"]["name"], one["fraction"]) for one in mirrors] == [
        ("tidemill-shadow", {"numerator": 250_000, "denominator": 1_000_000})
    ] * 2
    marks = [one["requestHeaderModifier"] for one in filters(routes[SHADOW], "RequestHeaderModifier")]
    assert marks == [{"set": [{"name": "x-tidemill-shadow", "value": "true"}]}]
    target.apply(SPLIT, 1)
    assert world.all("HTTPRoute").keys() == {MAIN}
    assert weights(world.all("HTTPRoute")[MAIN]) == [[(ONE, 5_000), (TWO, 5_000)]] * 2
    assert not filters(world.all("HTTPRoute")[MAIN], "RequestMirror")
    assert world.all("BackendTrafficPolicy").keys() == {MAIN}
    target.apply(CANARY, 1)
    assert weights(world.all("HTTPRoute")[MAIN]) == [[(ONE, 9_500), (TWO, 500)]] * 2
    assert not world.all("BackendTrafficPolicy")
    target.apply(PROMOTED, 1)
    assert weights(world.all("HTTPRoute")[MAIN]) == [[(TWO, 10_000)]] * 2


def test_a_version_is_pinned_by_a_header(world: World) -> None:
    target = world.target()
    target.reconcile(BOTH, None)
    target.apply(PROMOTED, 1)
    pins = {}
    for rule in world.all("HTTPRoute")[MAIN]["spec"]["rules"][2:]:
        headers = {one["name"]: one["value"] for one in rule["matches"][0]["headers"]}
        pins[headers["x-tidemill-version"], rule["matches"][0]["path"]["value"]] = rule["backendRefs"][0]["name"]
    assert pins == {("v1", "/docs/v1"): ONE, ("v1", "/v1"): ONE, ("v2", "/docs/v1"): TWO, ("v2", "/v1"): TWO}


def test_the_applied_version_tells_every_change(world: World) -> None:
    target = world.target()
    target.reconcile(BOTH, None)
    assert target.applied_version() is None
    first = target.apply(routing("v1"), 1)
    assert target.applied_version() == first
    assert target.apply(routing("v1"), 1) == first
    assert world.target().applied_version() == first  # another process knows it, too
    second = target.apply(CANARY, 1)
    assert second != first and target.applied_version() == second
    route = world.all("HTTPRoute")[MAIN]
    route["spec"]["rules"][0]["backendRefs"][0]["weight"] = 1  # by hand
    world.client.patch(KINDS["HTTPRoute"], MAIN, {"spec": route["spec"]}, patch_type=PatchType.MERGE)
    assert target.applied_version() != second
    target.apply(CANARY, 1)
    assert weights(world.all("HTTPRoute")[MAIN])[0] == [(ONE, 9_500), (TWO, 500)]


def test_make_before_break(world: World) -> None:
    calls = world.calls()
    target = world.target(calls)
    target.reconcile([replica("v1")], set())
    target.apply(routing("v1"), 1)
    calls.writes.clear()
    target.reconcile(BOTH, {("docs", "v1")})
    target.apply(CANARY, 1)
    target.apply(routing("v2"), 1)
    target.reconcile([replica("v2")], {("docs", "v2"), ("docs", "v1")})  # it still drains
    assert ONE in world.all("Deployment")
    target.reconcile([replica("v2")], None)  # nobody knows
    assert ONE in world.all("Deployment")
    target.reconcile([replica("v2")], {("docs", "v2")})
    assert calls.writes == [
        ("PATCH", f"services/{TWO}"),
        ("PATCH", f"deployments/{TWO}"),
        ("PATCH", f"httproutes/{MAIN}"),
        ("PATCH", f"httproutes/{MAIN}"),
        ("DELETE", f"deployments/{ONE}"),
        ("DELETE", f"services/{ONE}"),
    ]
    assert world.all("Deployment").keys() == world.all("Service").keys() == {TWO}


def test_no_route_leads_to_what_is_not_there(world: World) -> None:
    target = world.target()
    target.reconcile([replica("v1")], None)
    target.apply(routing("v1"), 1)
    with pytest.raises(KubernetesError, match=TWO):
        target.apply(CANARY, 1)
    assert weights(world.all("HTTPRoute")[MAIN])[0] == [(ONE, 10_000)]


def test_what_leads_to_a_route_comes_before_it_and_goes_after_it(world: World) -> None:
    calls = world.calls()
    target = world.target(calls)
    target.reconcile(BOTH, None)
    target.apply(routing("v1"), 1)
    calls.writes.clear()
    target.apply(SHADOWED, 1)
    target.apply(SPLIT, 1)
    target.apply(CANARY, 1)
    assert calls.writes == [
        ("POST", "httproutes"),
        ("PATCH", f"httproutes/{MAIN}"),
        ("POST", "backendtrafficpolicies"),
        ("PATCH", f"httproutes/{MAIN}"),
        ("DELETE", f"httproutes/{SHADOW}"),
        ("PATCH", f"httproutes/{MAIN}"),
        ("DELETE", f"backendtrafficpolicies/{MAIN}"),
    ]


def test_models_that_are_routed_no_longer_lose_their_routes(world: World) -> None:
    target = world.target()
    target.reconcile(BOTH, None)
    target.apply(SHADOWED, 1)
    target.apply(Routing(), 1)
    assert not world.all("HTTPRoute")
    assert world.all("Deployment").keys() == {ONE, TWO}


@pytest.mark.parametrize("kind", ["Deployment", "Service", "HTTPRoute"])
def test_somebody_elses_object_is_left_alone(world: World, kind: str) -> None:
    target, client = world.target(), world.client
    target.reconcile(BOTH, None)
    target.apply(CANARY, 1)
    name = MAIN if kind == "HTTPRoute" else ONE
    taken = world.all(kind)[name]
    client.delete(KINDS[kind], name)
    metadata = {"name": name, "labels": {"app.kubernetes.io/managed-by": "somebody"}}
    taken = {"apiVersion": taken["apiVersion"], "kind": kind, "metadata": metadata, "spec": taken["spec"]}
    for key in ("clusterIP", "clusterIPs"):
        taken["spec"].pop(key, None)
    before = client.create(KINDS[kind].from_dict(taken)).to_dict()
    other = {**taken, "metadata": {"name": "foreign", "labels": metadata["labels"]}}
    client.create(KINDS[kind].from_dict(other))
    with pytest.raises(TidemillError, match="somebody else's"):
        target.reconcile(BOTH, set())
        target.apply(CANARY, 1)
    target.reconcile([], set())
    target.apply(Routing(), 1)
    found = world.all(kind)
    assert found.keys() == {name, "foreign"}
    assert found[name]["metadata"]["uid"] == before["metadata"]["uid"]
    assert found[name]["spec"] == before["spec"]


def test_an_older_holder_changes_nothing(world: World) -> None:
    older, newer = world.target(), world.target()
    older.reconcile(BOTH, None)
    older.apply(routing("v1"), 1)
    version = newer.apply(routing("v1"), 2)  # unchanged, and still it is the newer one's from now on
    assert world.all("HTTPRoute")[MAIN]["metadata"]["annotations"][LEASE_TOKEN] == "2"
    for told in (CANARY, Routing()):
        with pytest.raises(LeaseLost):
            older.apply(told, 1)
    assert newer.applied_version() == version
    assert weights(world.all("HTTPRoute")[MAIN])[0] == [(ONE, 10_000)]


def test_a_newer_holder_that_comes_in_between_is_not_overwritten(world: World) -> None:
    """Compare-and-set: the older one has read before, and writes after."""
    calls = world.calls()
    older, newer = world.target(calls), world.target()
    older.reconcile(BOTH, None)
    older.apply(routing("v1"), 1)
    calls.before_write = once(lambda: newer.apply(SPLIT, 2))
    with pytest.raises(LeaseLost):
        older.apply(CANARY, 1)
    assert weights(world.all("HTTPRoute")[MAIN])[0] == [(ONE, 5_000), (TWO, 5_000)]


def test_the_first_writer_of_a_new_route_counts(world: World) -> None:
    calls = world.calls()
    older, newer = world.target(calls), world.target()
    older.reconcile(BOTH, None)
    calls.before_write = once(lambda: newer.apply(SPLIT, 2))
    with pytest.raises(LeaseLost):
        older.apply(CANARY, 1)
    assert weights(world.all("HTTPRoute")[MAIN])[0] == [(ONE, 5_000), (TWO, 5_000)]


def test_a_change_of_status_in_between_is_no_obstacle(world: World) -> None:
    calls = world.calls()
    target = world.target(calls)
    target.reconcile(BOTH, None)
    target.apply(routing("v1"), 1)

    def touch() -> None:
        metadata = {"metadata": {"annotations": {"somebody/was": "here"}}}
        world.client.patch(KINDS["HTTPRoute"], MAIN, metadata, patch_type=PatchType.MERGE)

    calls.before_write = once(touch)
    target.apply(CANARY, 1)
    found = world.all("HTTPRoute")[MAIN]
    assert weights(found)[0] == [(ONE, 9_500), (TWO, 500)]
    assert found["metadata"]["annotations"]["somebody/was"] == "here"


def test_a_refused_route_is_undone_and_not_tried_again_at_once(world: World) -> None:
    calls = world.calls()
    target = world.target(calls)
    target.reconcile(BOTH, None)
    target.apply(routing("v1"), 1)
    before = world.all("HTTPRoute")[MAIN]
    world.gateway.verdict = lambda route: "BackendNotFound" if "9500" in json.dumps(route["spec"]) else None
    with pytest.raises(RouteRefused, match="BackendNotFound"):
        target.apply(CANARY, 1)
    after = world.all("HTTPRoute")[MAIN]
    assert after["spec"] == before["spec"]
    for name in ("tidemill/clusters", LEASE_TOKEN):
        assert after["metadata"]["annotations"][name] == before["metadata"]["annotations"][name]
    calls.writes.clear()
    with pytest.raises(RouteRefused, match="BackendNotFound"):
        target.apply(CANARY, 1)
    assert not calls.writes
    target.apply(SPLIT, 1)
    assert weights(world.all("HTTPRoute")[MAIN])[0] == [(ONE, 5_000), (TWO, 5_000)]


def test_a_refused_first_route_goes(world: World) -> None:
    target = world.target()
    target.reconcile(BOTH, None)
    world.gateway.verdict = lambda route: "NotAllowedByListeners"
    with pytest.raises(RouteRefused):
        target.apply(routing("v1"), 1)
    assert not world.all("HTTPRoute")


def test_a_refusal_of_one_model_is_not_the_others(world: World) -> None:
    target = world.target()
    other = Replica(model="tags", version="v1", tag="tags:v1", port=3101, environment={})
    target.reconcile([*BOTH, other], None)
    told = Routing(
        routes=(*CANARY.routes, ModelRoute(model="tags", champion="v1")),
        endpoints=(*CANARY.endpoints, Endpoint(model="tags", version="v1", port=3101)),
    )
    world.gateway.verdict = lambda route: "no" if route["metadata"]["name"] == MAIN else None
    with pytest.raises(RouteRefused, match="docs"):
        target.apply(told, 1)
    assert world.all("HTTPRoute").keys() == {object_name("tidemill", "tags")}


def test_a_refusal_is_undone_although_the_first_try_was_killed(world: World) -> None:
    target = world.target()
    target.reconcile(BOTH, None)
    target.apply(routing("v1"), 1)
    before = world.all("HTTPRoute")[MAIN]
    world.gateway.verdict = lambda route: "no" if "9500" in json.dumps(route["spec"]) else None
    for n in range(1, 100):
        calls = world.calls(kill_at=n)
        try:
            with pytest.raises(RouteRefused):
                world.target(calls).apply(CANARY, 1)
            break
        except Killed:
            with pytest.raises(RouteRefused):
                world.target().apply(CANARY, 1)
            assert world.all("HTTPRoute")[MAIN]["spec"] == before["spec"], n
    else:
        pytest.fail("it never came to an end")


def test_a_silent_gateway_is_told(world: World) -> None:
    target = world.target(confirm_timeout_s=0.3)
    target.reconcile(BOTH, None)
    target.apply(routing("v1"), 1)
    world.gateway.silent = True
    with pytest.raises(KubernetesError, match="no word on"):
        target.apply(CANARY, 1)
    assert target.applied_version() is None


def test_an_api_that_is_away_is_told_without_the_token() -> None:
    with memory_api() as (gone, _):
        pass
    target = KubernetesTarget(KubernetesSettings(namespace=NAMESPACE), gone.client())
    asked: Sequence[Callable[[], object]] = (
        lambda: target.reconcile([replica("v1")], None),
        lambda: target.apply(routing("v1"), 1),
        target.applied_version,
        target.observe,
        lambda: target.last_words("docs", "v1"),
    )
    for ask in asked:
        with pytest.raises(KubernetesError) as told:
            ask()
        assert gone.user.token is not None and gone.user.token not in str(told.value)


def walk(target: KubernetesTarget) -> None:
    """A whole rollout as the controller would walk it."""
    target.reconcile([replica("v1")], set())
    target.apply(routing("v1"), 3)
    target.reconcile(BOTH, {("docs", "v1")})
    for stage in (SHADOWED, SPLIT, CANARY, PROMOTED, routing("v2")):
        target.apply(stage, 3)
    target.reconcile([replica("v2")], {("docs", "v2")})


@pytest.mark.parametrize("sent", [False, True], ids=["before it is sent", "before it is answered"])
def test_killed_at_any_call_it_comes_to_the_same_end(world: World, sent: bool) -> None:
    """Each life is killed one call further on; the next one begins anew with a newer token's right to act."""
    walk(world.target())
    expected = shape(world)
    # Both ways together cover every call; a life takes seconds, on the real server above all.
    survived, step = 0, 2 if world.api.has_logs else 9
    for n in range(1 + sent, 400, step):
        world.clear()
        try:
            walk(world.target(world.calls(kill_at=n, sent=sent)))
            break
        except Killed:
            survived += 1
            walk(world.target())
            assert shape(world) == expected, n
    else:
        pytest.fail("it never came to an end")
    assert survived * step > 40


def shape(world: World) -> dict[str, dict[str, Any]]:
    kinds = ("Deployment", "Service", "HTTPRoute", "BackendTrafficPolicy")
    return {kind: {name: _wanted(found["spec"]) for name, found in world.all(kind).items()} for kind in kinds}


def _wanted(spec: Json) -> Json:
    """Without what the API server gives each new object for itself."""
    return {key: value for key, value in spec.items() if key not in ("clusterIP", "clusterIPs")}


def test_sightings_follow_the_pods(world: World) -> None:
    target, client, key = world.target(), world.client, ("docs", "v1")
    target.reconcile([replica("v1")], None)
    made = make_pod(client, world.all("Deployment")[ONE], "one", {"phase": "Pending"})
    assert target.reconcile([replica("v1")], None)[key].probe == "slow"
    assert target.last_words(*key) is None
    set_pod(client, "one", pod_status({"running": {"startedAt": "2026-01-01T00:00:00Z"}}, ready=True))
    ready = target.reconcile([replica("v1")], None)[key]
    assert (ready.identity, ready.probe) == (f"{made['metadata']['uid']}/0", "ready")
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
    set_pod(client, "one", pod_status(waiting, ready=False, restarts=3))
    crashed = target.reconcile([replica("v1")], None)[key]
    assert (crashed.identity, crashed.probe) == (f"{made['metadata']['uid']}/3", "refused")
    assert target.last_words(*key) == "back-off 10s restarting failed container"
    # Pods of an earlier definition say nothing of the present one.
    assert target.reconcile([replica("v1", A="1")], None) == {}
    assert (
        target.reconcile([replica("v1", A="1")], None)[key].identity == world.all("Deployment")[ONE]["metadata"]["uid"]
    )


def test_last_words_are_the_end_of_the_log() -> None:
    with memory_api() as (api, memory):
        client = api.client()
        target = KubernetesTarget(KubernetesSettings(namespace=NAMESPACE), client)
        target.reconcile([replica("v1")], None)
        deployment = next(one.to_dict() for one in client.list(KINDS["Deployment"]))
        make_pod(client, deployment, "one", pod_status({"terminated": {"exitCode": 1}}, ready=False))
        memory.logs["one"] = f"first\n{'x' * 400} the end\n\n"
        assert target.last_words("docs", "v1") == ("x" * 292 + " the end")
        memory.logs["one"] = ""
        assert target.last_words("docs", "v1") is None
        assert target.last_words("docs", "v9") is None


def once(act: Callable[[], object]) -> Callable[[object], None]:
    left = [act]

    def run(_: object) -> None:
        if left:
            left.pop()()

    return run
