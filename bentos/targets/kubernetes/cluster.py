"""The few calls to the Kubernetes API that a target makes, each with an error that says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
import lightkube
from lightkube.core.exceptions import ConfigError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod, Service
from lightkube.types import PatchType

from bentos.targets.kubernetes.names import FIELD_MANAGER, Json, is_ours, our_labels
from bentos.targets.kubernetes.settings import KubernetesSettings
from lake.errors import TidemillError

TIMEOUT_S = 10.0
_CONFLICT, _NOT_FOUND = 409, 404

KINDS: Mapping[str, Any] = {
    "Deployment": Deployment,
    "Service": Service,
    "Pod": Pod,
    "HTTPRoute": create_namespaced_resource("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
    "BackendTrafficPolicy": create_namespaced_resource(
        "gateway.envoyproxy.io", "v1alpha1", "BackendTrafficPolicy", "backendtrafficpolicies"
    ),
}


class KubernetesError(TidemillError):
    """The cluster's API is not there, or refuses."""


class Changed(KubernetesError):
    """An object is no longer what it was when it was read."""


class Cluster:
    """The objects of one installation in one namespace. Objects go in and come out as plain JSON."""

    def __init__(self, settings: KubernetesSettings, client: lightkube.Client | None = None) -> None:
        """Raises KubernetesError when there is neither a service account nor a usable kubeconfig."""
        self._installation = settings.installation
        with _explained("configuration"):
            self._client = client or lightkube.Client(
                namespace=settings.namespace, field_manager=FIELD_MANAGER, timeout=httpx2.Timeout(TIMEOUT_S)
            )
        self.namespace: str = settings.namespace or self._client.namespace

    def all(self, kind: str, carried: Mapping[str, str] | None = None) -> dict[str, Json]:
        """Our objects of a kind, by name; those that are being deleted are left out."""
        selector = {**our_labels(self._installation), **(carried or {})}
        with _explained(kind):
            found = [
                _json(one) for one in self._client.list(KINDS[kind], namespace=self.namespace, labels=dict(selector))
            ]
        return {one["metadata"]["name"]: one for one in found if not one["metadata"].get("deletionTimestamp")}

    def get(self, kind: str, name: str) -> Json | None:
        with _explained(f"{kind} {name}"):
            try:
                return _json(self._client.get(KINDS[kind], name, namespace=self.namespace))
            except httpx2.HTTPStatusError as error:
                if error.response.status_code == _NOT_FOUND:
                    return None
                raise

    def create(self, manifest: Json) -> Json:
        """Raises Changed when there is an object of that name."""
        kind, name = _of(manifest)
        with _explained(f"{kind} {name}"):
            return _json(self._client.create(KINDS[kind].from_dict(manifest), namespace=self.namespace))

    def apply(self, manifest: Json, live: Json | None) -> Json:
        """Server-side apply. Our own object is changed only if it still is `live` (Changed is raised otherwise).

        What is not ours is never changed: without `live` nothing is forced, and an object of that name that has no
        label of ours is refused with a KubernetesError.
        """
        kind, name = _of(manifest)
        if live is None:
            self._refuse_foreign(kind, name)
        else:
            version = live["metadata"]["resourceVersion"]
            manifest = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": version}}
        with _explained(f"{kind} {name}"):
            return _json(
                self._client.patch(
                    KINDS[kind],
                    name,
                    manifest,
                    namespace=self.namespace,
                    patch_type=PatchType.APPLY,
                    field_manager=FIELD_MANAGER,
                    force=live is not None,
                )
            )

    def delete(self, kind: str, name: str) -> None:
        """Its pods get SIGTERM and their time; what is gone already is fine."""
        with _explained(f"{kind} {name}"):
            try:
                self._client.delete(KINDS[kind], name, namespace=self.namespace)
            except httpx2.HTTPStatusError as error:
                if error.response.status_code != _NOT_FOUND:
                    raise

    def last_line(self, pod: str, container: str) -> str | None:
        """The last line of a container's log; None when it has written none, or has not begun."""
        with _explained(f"log of {pod}"):
            try:
                lines = [
                    line.strip()
                    for line in self._client.log(pod, container=container, tail_lines=5, namespace=self.namespace)
                ]
            except httpx2.HTTPStatusError:
                return None
        return next((line for line in reversed(lines) if line), None)

    def _refuse_foreign(self, kind: str, name: str) -> None:
        found = self.get(kind, name)
        if found is not None and not is_ours(found, self._installation):
            raise foreign(kind, name)


def foreign(kind: str, name: str) -> KubernetesError:
    return KubernetesError(
        f"{kind} {name}",
        expected="no object of that name, or one with the labels of this installation",
        got="somebody else's",
        remedy="rename or remove it, or set TIDEMILL_KUBERNETES_INSTALLATION to another name",
    )


def _of(manifest: Json) -> tuple[str, str]:
    return str(manifest["kind"]), str(manifest["metadata"]["name"])


def _json(found: Any) -> Json:
    told: Json = found.to_dict()
    return told


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Errors tell the API's own words, and never a request's headers: those hold the token."""
    try:
        yield
    except httpx2.HTTPStatusError as error:
        code = error.response.status_code
        kind = Changed if code == _CONFLICT else KubernetesError
        raise kind(
            f"Kubernetes, {what}",
            expected="the API server to do as told",
            got=f"{code}: {str(error)[:500]}",
            remedy=_remedy(code),
        ) from error
    except (httpx2.HTTPError, ConfigError, OSError, ValueError, LookupError) as error:
        raise KubernetesError(
            f"Kubernetes, {what}",
            expected="an answer from the API server",
            got=f"{type(error).__name__}: {str(error)[:500]}",
            remedy="see that the cluster is up, and that the service account or KUBECONFIG is right",
        ) from error


def _remedy(code: int) -> str:
    if code in (401, 403):
        return "give the controller the rights in deploy/kubernetes/rbac.yaml"
    if code == _NOT_FOUND:
        return "apply deploy/kubernetes, and see that the Gateway API and Envoy Gateway are installed"
    return "trying again is safe"
