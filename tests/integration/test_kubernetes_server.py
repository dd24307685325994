"""What only a real API server can tell: whether it takes every manifest to the letter, and whether the rights suffice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from lightkube.config.models import User
from lightkube.resources.core_v1 import Namespace, Secret
from lightkube.resources.rbac_authorization_v1 import Role, RoleBinding

from bentos.routing import Endpoint, ModelRoute, Routing
from bentos.targets.kubernetes import KubernetesError, KubernetesSettings, KubernetesTarget
from bentos.targets.kubernetes.cluster import KINDS
from bentos.targets.kubernetes.routes import http_route, shadow_route, sticky_policy
from bentos.targets.kubernetes.workloads import deployment, service
from lake.ledger.rollout_state import Replica
from tests.kube_apiserver import CONTROLLER_TOKEN, kube_apiserver
from tests.kubernetes_api import NAMESPACE, Api
from tests.kubernetes_controllers import GatewayController, make_pod, pod_status, running

pytestmark = pytest.mark.integration

Json = dict[str, Any]
DEPLOY = Path(__file__).parents[2] / "deploy" / "kubernetes"
PLURALS = {"BackendTrafficPolicy": "backendtrafficpolicies", "SecurityPolicy": "securitypolicies"}
PLURALS |= {
    "ClientTrafficPolicy": "clienttrafficpolicies",
    "EnvoyProxy": "envoyproxies",
    "GatewayClass": "gatewayclasses",
}
CLUSTER_WIDE = ("Namespace", "GatewayClass")
REPLICAS = [
    Replica(model="docs", version=version, tag=version, port=1, environment={"A": "1"}) for version in ("v1", "v2")
]
STAGES = [
    ModelRoute(model="docs", champion="v1"),
    ModelRoute(model="docs", champion="v1", challenger="v2", stage="shadow", share=0.5),
    ModelRoute(model="docs", champion="v1", challenger="v2", stage="ab", share=0.5, sticky=True),
    ModelRoute(model="docs", champion="v1", challenger="v2", stage="canary", share=0.05),
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with kube_apiserver(tmp_path_factory.mktemp("kubernetes")) as api:
        for name in ("tidemill", "envoy-gateway-system"):
            api.client().create(Namespace.from_dict({"metadata": {"name": name}}))
        yield api


def dry_run(api: Api, manifest: Json) -> httpx2.Response:
    """Server-side apply that changes nothing and tolerates no unknown field."""
    kind, metadata = manifest["kind"], manifest["metadata"]
    group = manifest["apiVersion"]
    plural = PLURALS.get(kind, f"{kind.lower()}s")
    place = "" if kind in CLUSTER_WIDE else f"/namespaces/{metadata.get('namespace', NAMESPACE)}"
    path = f"/{'apis' if '/' in group else 'api'}/{group}{place}/{plural}/{metadata['name']}"
    with httpx2.Client(transport=api.transport(), trust_env=False) as client:
        return client.patch(
            f"{api.url}{path}",
            params={"fieldManager": "tests", "dryRun": "All", "fieldValidation": "Strict"},
            headers={"Content-Type": "application/apply-patch+yaml", "Authorization": f"Bearer {api.user.token}"},
            content=yaml.safe_dump(manifest),
        )


def deployed() -> list[Json]:
    found = [one for file in sorted(DEPLOY.glob("*.yaml")) for one in yaml.safe_load_all(file.read_text())]
    return [one for told in found for one in (told["items"] if told["kind"] == "List" else [told])]


def test_every_manifest_is_taken_to_the_letter(api: Api) -> None:
    told = KubernetesSettings(namespace=NAMESPACE)
    made = [deployment(told, REPLICAS[0]), service(told, "docs", "v1")]
    for route in STAGES:
        made += [one for one in (http_route(told, route, ["v1", "v2"]), shadow_route(told, route)) if one]
        made += [one for one in (sticky_policy(told, route),) if one]
    for manifest in (*made, *deployed()):
        answer = dry_run(api, manifest)
        assert answer.is_success, (manifest["kind"], manifest["metadata"]["name"], answer.text)


def test_what_breaks_a_rule_is_refused(api: Api) -> None:
    """The rules beside the schemas are in force here: a rewrite needs exactly one path to match."""
    route = http_route(KubernetesSettings(namespace=NAMESPACE), STAGES[0], [])
    route["spec"]["rules"][0]["matches"] *= 2
    assert "replacePrefixMatch" in dry_run(api, route).text
    unknown = dry_run(api, {**route, "spec": {"rulez": []}})
    assert unknown.is_error and "rulez" in unknown.text


def test_the_controllers_rights_suffice_and_go_no_further(api: Api) -> None:
    admin = api.client()
    for manifest in deployed():
        kind = {"Role": Role, "RoleBinding": RoleBinding}.get(manifest["kind"])
        if kind is not None:
            manifest["metadata"]["namespace"] = NAMESPACE
            for subject in manifest.get("subjects", ()):
                subject["namespace"] = NAMESPACE
            admin.create(kind.from_dict(manifest))
    client = api._replace(user=User(token=CONTROLLER_TOKEN)).client()
    target = KubernetesTarget(KubernetesSettings(namespace=NAMESPACE, confirm_timeout_s=10), client)
    endpoints = tuple(Endpoint(model="docs", version=one.version, port=1) for one in REPLICAS)
    with running(GatewayController(admin)):
        target.reconcile(REPLICAS, None)
        for route in STAGES:
            target.apply(Routing(routes=(route,), endpoints=endpoints), 1)
        target.reconcile(REPLICAS, None)
        target.reconcile([REPLICAS[0].model_copy(update={"environment": {}})], set())
        first = next(one.to_dict() for one in admin.list(KINDS["Deployment"]))
        make_pod(admin, first, "one", pod_status({"waiting": {"reason": "ErrImagePull"}}, ready=False))
        assert target.last_words("docs", "v1") == "ErrImagePull"
        target.apply(Routing(), 1)
        target.reconcile([], set())
    with pytest.raises(httpx2.HTTPStatusError, match="forbidden"):
        list(client.list(Secret))
    elsewhere = KubernetesTarget(KubernetesSettings(namespace="tidemill"), client)
    with pytest.raises(KubernetesError, match=r"rbac\.yaml"):
        elsewhere.reconcile(REPLICAS, None)
