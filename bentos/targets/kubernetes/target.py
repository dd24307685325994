"""A Kubernetes cluster as the place where models are served."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import lightkube

from bentos.counters import Snapshot
from bentos.routing import Routing
from bentos.targets.kubernetes.cluster import Cluster
from bentos.targets.kubernetes.names import DEFINITION, MODEL, VERSION, Json, annotation, labels, object_name
from bentos.targets.kubernetes.pods import has_log, last_message, sighting, speaker_of
from bentos.targets.kubernetes.prometheus import Counted, read_counters
from bentos.targets.kubernetes.settings import KubernetesSettings
from bentos.targets.kubernetes.traffic import CLUSTERS, CLUSTERS_SINCE, Traffic
from bentos.targets.kubernetes.workloads import CONTAINER, deployment, service
from bentos.targets.target import Key, Sighting
from lake.ledger.rollout_state import Replica

log = logging.getLogger(__name__)


class KubernetesTarget:
    """A `Target`. What it has to remember is in the cluster's objects, so any process may go on with it."""

    def __init__(self, settings: KubernetesSettings, client: lightkube.Client | None = None) -> None:
        """Raises KubernetesError when there is neither a service account nor a usable kubeconfig."""
        self.settings = settings
        self.cluster = Cluster(settings, client)
        self._traffic = Traffic(settings, self.cluster)

    def reconcile(self, wanted: Sequence[Replica], routed: Collection[Key] | None) -> dict[Key, Sighting]:
        """Service first, then pods; what goes, goes the other way round. Replicas whose pods are new are left out."""
        found, reached = self.cluster.all("Deployment"), self.cluster.all("Service")
        current: dict[Key, Json] = {}
        for replica in wanted:
            key = (replica.model, replica.version)
            self._reach(key, reached)
            deployed = self._deploy(replica, found)
            if deployed is not None:
                current[key] = deployed
        if routed is not None:
            self._end({(one.model, one.version) for one in wanted} | set(routed), found, reached)
        pods = self.cluster.all("Pod") if current else {}
        return {key: sighting(one, _of(key, pods)) for key, one in current.items()}

    def apply(self, routing: Routing, token: int) -> str:
        return self._traffic.apply(routing, token)

    def applied_version(self) -> str | None:
        return self._traffic.applied_version()

    def observe(self) -> Snapshot:
        """Every version that a route leads to or mirrors to; pinned requests are not counted."""
        return read_counters(self.settings, self.cluster.namespace, _counted(self._traffic.live().values()))

    def last_words(self, model: str, version: str) -> str | None:
        pods = self.cluster.all("Pod", labels(self.settings.installation, model, version))
        if not pods:
            return None
        pod = speaker_of(pods.values())
        line = self.cluster.last_line(pod["metadata"]["name"], CONTAINER) if has_log(pod) else None
        words = line or last_message(pod)
        return words[-300:] if words else None

    def _reach(self, key: Key, reached: Mapping[str, Json]) -> None:
        name = object_name(self.settings.installation, *key)
        if name not in reached:
            self.cluster.apply(service(self.settings, *key), None)

    def _deploy(self, replica: Replica, found: Mapping[str, Json]) -> Json | None:
        """The Deployment that is as wanted; None when it had to be made, or changed."""
        manifest = deployment(self.settings, replica)
        live = found.get(manifest["metadata"]["name"])
        if (
            live is not None
            and live["metadata"]["labels"].get(DEFINITION) == manifest["metadata"]["labels"][DEFINITION]
        ):
            return live
        self.cluster.apply(manifest, live)
        log.info("%s %s: %s", replica.model, replica.version, "started" if live is None else "to be started anew")
        return None

    def _end(self, kept: Collection[Key], found: Mapping[str, Json], reached: Mapping[str, Json]) -> None:
        for kind, objects in (("Deployment", found), ("Service", reached)):
            for name, one in objects.items():
                key = _key(one)
                if key is not None and key not in kept:
                    self.cluster.delete(kind, name)
                    log.info("%s %s: %s gone: no longer wanted", *key, kind)


def _key(found: Json) -> Key | None:
    """None for what is ours but no replica: the controller's own Service, say."""
    carried = found["metadata"]["labels"]
    return (carried[MODEL], carried[VERSION]) if MODEL in carried and VERSION in carried else None


def _of(key: Key, pods: Mapping[str, Json]) -> list[Json]:
    return [pod for pod in pods.values() if _key(pod) == key]


def _counted(routes: Collection[Json]) -> Counted:
    versions: dict[str, Key] = {}
    since: list[datetime] = []
    for route in routes:
        named = json.loads(annotation(route, CLUSTERS) or "{}")
        versions |= {cluster: (route["metadata"]["labels"][MODEL], version) for cluster, version in named.items()}
        if named:
            since.append(datetime.fromisoformat(annotation(route, CLUSTERS_SINCE)))
    return Counted(versions, max(since, default=None))
