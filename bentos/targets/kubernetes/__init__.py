"""Replicas as Deployments and Services, traffic as routes of the Gateway API, counters from Prometheus."""

from bentos.targets.kubernetes.cluster import KubernetesError
from bentos.targets.kubernetes.settings import KubernetesSettings, load_kubernetes_settings
from bentos.targets.kubernetes.target import KubernetesTarget

__all__ = ["KubernetesError", "KubernetesSettings", "KubernetesTarget", "load_kubernetes_settings"]
