"""Manifests, those that are made and those in deploy/, against the schemas of Kubernetes and of the gateways."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bentos.envoy_bootstrap import DURATION_BOUNDS_MS
from bentos.routing import Endpoint, ModelRoute, Routing
from bentos.targets.kubernetes import KubernetesSettings
from bentos.targets.kubernetes.cluster import KINDS
from bentos.targets.kubernetes.names import object_name
from bentos.targets.kubernetes.routes import clusters, http_route, is_live, services, shadow_route, sticky_policy
from bentos.targets.kubernetes.workloads import deployment, service
from lake.errors import TidemillError
from lake.ledger.rollout_state import Replica
from tests.kubernetes_schemas import check

Json = dict[str, Any]
DEPLOY = Path(__file__).parents[4] / "deploy" / "kubernetes"
REPLICA = Replica(model="docs", version="v2", tag="docs:v2", port=3100, environment={"TIDEMILL_INJECT": "0.5"})
FULL = ModelRoute(model="docs", champion="v1")
SHADOW = ModelRoute(model="docs", champion="v1", challenger="v2", stage="shadow", share=0.001)
PARKED = ModelRoute(model="docs", champion="v1", challenger="v2", stage="shadow", share=0)
SPLIT = ModelRoute(model="docs", champion="v1", challenger="v2", stage="ab", share=0.5, sticky=True)
CANARY = ModelRoute(model="docs", champion="v1", challenger="v2", stage="canary", share=0.05)
STAGES = [FULL, SHADOW, PARKED, SPLIT, CANARY]


def settings(**told: Any) -> KubernetesSettings:
    return KubernetesSettings(namespace="models", **told)


def deployed() -> list[Json]:
    found = [one for file in sorted(DEPLOY.glob("*.yaml")) for one in yaml.safe_load_all(file.read_text())]
    return [one for told in found for one in (told["items"] if told["kind"] == "List" else [told])]


def deployed_one(kind: str, name: str) -> Json:
    return next(one for one in deployed() if (one["kind"], one["metadata"]["name"]) == (kind, name))


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"replicas": 3, "image_pull_secret": "pull", "resources": {"limits": {"nvidia.com/gpu": "1"}}},
        {"environment_secrets": ()},
    ],
)
def test_workloads_are_what_kubernetes_knows(told: Json) -> None:
    check(deployment(settings(**told), REPLICA))
    check(service(settings(**told), "docs", "v2"))


def test_a_variant_runs_the_image_of_its_bento() -> None:
    variant = REPLICA.model_copy(update={"version": "v2-b1"})
    found = [
        deployment(settings(image="registry/{model}:{version}"), replica)["spec"]["template"]["spec"]["containers"][0]
        for replica in (REPLICA, variant)
    ]
    assert [container["image"] for container in found] == ["registry/docs:v2"] * 2


@pytest.mark.parametrize("route", STAGES, ids=lambda route: f"{route.stage} {route.share:g}")
@pytest.mark.parametrize(
    "told",
    [
        {},
        {"shadow_gateway": None},
        {"gateway_namespace": "gateways", "hostnames": ("models.example",)},
        {"sticky": "none"},
    ],
    ids=["default", "no shadow gateway", "a gateway elsewhere", "not sticky"],
)
def test_routes_are_what_the_gateway_api_knows(route: ModelRoute, told: Json) -> None:
    made = (http_route(settings(**told), route, ["v1", "v2"]), shadow_route(settings(**told), route))
    for manifest in (*made, sticky_policy(settings(**told), route)):
        if manifest is not None:
            check(manifest)


def test_session_persistence_needs_the_experimental_channel() -> None:
    route = http_route(settings(sticky="session-persistence"), SPLIT, [])
    assert route["spec"]["rules"][0]["sessionPersistence"] == {"type": "Cookie", "sessionName": "tidemill-user"}
    with pytest.raises(jsonschema.ValidationError, match="sessionPersistence"):
        check(route)  # of the standard channel
    assert sticky_policy(settings(sticky="session-persistence"), SPLIT) is None


def test_schemas_refuse_what_they_do_not_know() -> None:
    manifest = deployment(settings(), REPLICA)
    manifest["spec"]["template"]["spec"]["containers"][0]["enviroment"] = []
    with pytest.raises(jsonschema.ValidationError, match="enviroment"):
        check(manifest)


@pytest.mark.parametrize("manifest", deployed(), ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_what_operators_apply_is_valid(manifest: Json) -> None:
    check(manifest)


def test_the_controller_has_the_rights_that_it_uses_and_no_others() -> None:
    rules = deployed_one("Role", "tidemill-controller")["rules"]
    told = {
        (group, kind): set(rule["verbs"]) for rule in rules for group in rule["apiGroups"] for kind in rule["resources"]
    }
    changed = {"get", "list", "create", "patch", "delete"}
    assert told == {
        ("apps", "deployments"): changed,
        ("", "services"): changed,
        ("", "pods"): {"list"},
        ("", "pods/log"): {"get"},
        ("gateway.networking.k8s.io", "httproutes"): changed,
        ("gateway.envoyproxy.io", "backendtrafficpolicies"): changed,
    }
    assert len(KINDS) == 5
    assert not [one for one in deployed() if one["kind"].startswith("ClusterRole")]


def test_what_operators_apply_fits_the_settings() -> None:
    told = settings()
    assert deployed_one("Gateway", told.gateway)
    shadow = deployed_one("Gateway", told.shadow_gateway or "")
    assert [one["port"] for one in shadow["spec"]["listeners"]] == [told.shadow_port]
    proxy = deployed_one("EnvoyProxy", shadow["spec"]["infrastructure"]["parametersRef"]["name"])
    assert proxy["spec"]["provider"]["kubernetes"]["envoyService"]["name"] == told.shadow_service
    grant = deployed_one("ReferenceGrant", told.shadow_service)
    controller = deployed_one("Deployment", "tidemill-controller")["spec"]["template"]["spec"]["containers"][0]
    environment = {one["name"]: one["value"] for one in controller["env"]}
    place = f"{grant['metadata']['namespace']}/{told.shadow_service}"
    assert environment["TIDEMILL_KUBERNETES_SHADOW_SERVICE"] == place
    assert deployed_one("ServiceAccount", told.service_account)
    script = (DEPLOY / "secrets.sh").read_text()
    for name in (*told.environment_secrets, "tidemill-controller", "tidemill-api-keys"):
        assert f"secret {name}\n" in script


def test_proxies_count_durations_as_finely_as_the_local_gateway() -> None:
    for name in ("tidemill", "tidemill-shadow"):
        bootstrap = yaml.safe_load(deployed_one("EnvoyProxy", name)["spec"]["bootstrap"]["value"])
        (bounds,) = bootstrap["stats_config"]["histogram_bucket_settings"]
        assert tuple(bounds["buckets"]) == DURATION_BOUNDS_MS


def test_the_script_of_the_secrets_is_a_script() -> None:
    subprocess.run(["sh", "-n", str(DEPLOY / "secrets.sh")], check=True)


def test_no_secret_is_in_what_operators_apply() -> None:
    assert not [one for one in deployed() if one["kind"] == "Secret"]


def test_a_change_of_the_environment_is_another_definition() -> None:
    told = deployment(settings(), REPLICA)["metadata"]["labels"]["tidemill/definition"]
    other = deployment(settings(), REPLICA.model_copy(update={"environment": {}}))
    assert other["metadata"]["labels"]["tidemill/definition"] != told
    assert deployment(settings(), REPLICA)["metadata"]["labels"]["tidemill/definition"] == told
    assert told not in other["spec"]["selector"]["matchLabels"].values()  # it cannot be changed later


def test_pods_drain_within_their_grace() -> None:
    pod = deployment(settings(), REPLICA)["spec"]["template"]["spec"]
    container = pod["containers"][0]
    pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = int(container["args"][container["args"].index("--timeout-graceful-shutdown") + 1])
    assert pause_s + drain_s < pod["terminationGracePeriodSeconds"]


def test_names_of_different_versions_differ() -> None:
    assert object_name("tidemill", "a-b", "c") != object_name("tidemill", "a", "b-c")
    long = object_name("tidemill", "m" * 42, "v123456789")
    assert len(long) <= 45 and long != object_name("tidemill", "m" * 42, "v123456780")


def test_a_version_that_no_label_holds_is_refused() -> None:
    with pytest.raises(TidemillError, match="labels"):
        service(settings(), "docs", "v1/hotfix")


def test_clusters_keep_their_version_through_the_stages_of_a_rollout() -> None:
    told = [clusters(settings(), "models", route) for route in STAGES]
    for one in told:
        for other in told:
            assert all(other.get(name, version) == version for name, version in one.items())
    name = object_name("tidemill", "docs")
    assert told[3] == {
        f"httproute/models/{name}/rule/{rule}/backend/{position}": version
        for rule in (0, 1)
        for position, version in enumerate(("v1", "v2"))
    }


def test_mirrored_requests_are_no_assigned_ones() -> None:
    for told in ({}, {"shadow_gateway": None}):
        named = clusters(settings(**told), "models", SHADOW)
        live = {name for name in named if is_live(name, settings(**told), "docs")}
        assert {named[name] for name in live} == {"v1"}
        assert {named[name] for name in named.keys() - live} == {"v2"}


def test_an_unmarked_mirror_leads_to_the_challenger() -> None:
    route = http_route(settings(shadow_gateway=None), SHADOW, [])
    mirrors = [one for rule in route["spec"]["rules"] for one in rule["filters"] if one["type"] == "RequestMirror"]
    assert {one["requestMirror"]["backendRef"]["name"] for one in mirrors} == {object_name("tidemill", "docs", "v2")}
    assert "namespace" not in json.dumps(mirrors)
    assert shadow_route(settings(shadow_gateway=None), SHADOW) is None


def test_clients_cannot_mark_themselves_as_shadows() -> None:
    for route in STAGES:
        for rule in http_route(settings(), route, ["v1", "v2"])["spec"]["rules"]:
            changes = [
                one["requestHeaderModifier"] for one in rule["filters"] if one["type"] == "RequestHeaderModifier"
            ]
            assert "x-tidemill-shadow" in changes[0]["remove"]


def test_services_are_those_of_all_endpoints() -> None:
    endpoints = tuple(Endpoint(model="docs", version=version, port=1) for version in ("v1", "v2"))
    assert services(settings(), Routing(routes=(FULL,), endpoints=endpoints)) == {
        object_name("tidemill", "docs", "v1"),
        object_name("tidemill", "docs", "v2"),
    }
