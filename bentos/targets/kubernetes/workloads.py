"""A version's pods and how they are reached: one Deployment and one Service, as pure functions of the ledger's replica."""

from __future__ import annotations

from bentos.serve import DRAIN_TIMEOUT_S, KEEP_ALIVE_S
from bentos.targets.kubernetes.names import DEFINITION, Json, definition_of, labels, object_name
from bentos.targets.kubernetes.settings import KubernetesSettings
from lake.ledger.rollout_state import Replica

CONTAINER = "model"


def service(settings: KubernetesSettings, model: str, version: str) -> Json:
    carried = labels(settings.installation, model, version)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(settings, carried, object_name(settings.installation, model, version)),
        "spec": {
            "selector": carried,
            "ports": [{"name": "http", "port": settings.port, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def deployment(settings: KubernetesSettings, replica: Replica) -> Json:
    """Its label `tidemill/definition` changes with anything that defines the pods, and they carry it, too."""
    carried = labels(settings.installation, replica.model, replica.version)
    template = {"metadata": {"labels": carried}, "spec": _pod(settings, replica)}
    definition = definition_of({"template": template, "replicas": settings.replicas})
    template["metadata"] = {"labels": {**carried, DEFINITION: definition}}
    name = object_name(settings.installation, replica.model, replica.version)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(settings, {**carried, DEFINITION: definition}, name),
        "spec": {
            "replicas": settings.replicas,
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": carried},
            # The old pods serve until the new ones are ready.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template,
        },
    }


def image(settings: KubernetesSettings, model: str, version: str) -> str:
    return settings.image.replace("{model}", model).replace("{version}", version)


def _pod(settings: KubernetesSettings, replica: Replica) -> Json:
    pod: Json = {
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.termination_grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.run_as_user,
            "runAsGroup": settings.run_as_user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(settings, replica)],
    }
    if settings.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": settings.image_pull_secret}]
    return pod


def _container(settings: KubernetesSettings, replica: Replica) -> Json:
    environment = {
        "BENTOML_DO_NOT_TRACK": "True",
        "OTEL_SDK_DISABLED": "true",
        "MALLOC_ARENA_MAX": "2",
        "TIDEMILL_HOME": "/tmp/tidemill",  # noqa: S108 the pod's own
        **replica.environment,
    }
    return {
        "name": CONTAINER,
        # A variant of a version has a name of its own, and the image of its bento.
        "image": image(settings, replica.model, replica.tag.partition(":")[2] or replica.version),
        # The image's entry point takes these for `bentoml serve`.
        "args": [
            *("--host", "0.0.0.0", "--port", str(settings.port)),  # noqa: S104 within its pod
            *("--timeout-keep-alive", str(KEEP_ALIVE_S), "--timeout-graceful-shutdown", str(DRAIN_TIMEOUT_S)),
        ],
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
        "envFrom": [{"secretRef": {"name": name}} for name in settings.environment_secrets],
        "ports": [{"name": "http", "containerPort": settings.port, "protocol": "TCP"}],
        "resources": settings.resources,
        # A replica that computes on every core answers late; loading a model takes minutes on a busy node.
        "startupProbe": _probe("/readyz", period_s=2, failures=150),
        "readinessProbe": _probe("/readyz", period_s=2, failures=3),
        "livenessProbe": _probe("/livez", period_s=10, failures=6),
        # Endpoints are taken out of the proxies while the pod still answers: nobody meets a closed port.
        "lifecycle": {"preStop": {"sleep": {"seconds": settings.pre_stop_s}}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _probe(path: str, period_s: int, failures: int) -> Json:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _metadata(settings: KubernetesSettings, carried: dict[str, str], name: str) -> Json:
    told: Json = {"name": name, "labels": carried}
    return told if settings.namespace is None else {**told, "namespace": settings.namespace}
