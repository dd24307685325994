"""Make the gateway route as told, by objects of the Gateway API: fenced, one model after the other, confirmed or undone."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bentos.routing import Routing
from bentos.targets.kubernetes.cluster import Changed, Cluster, KubernetesError, foreign
from bentos.targets.kubernetes.conditions import Word, word_on
from bentos.targets.kubernetes.names import LEASE_TOKEN, MODEL, Json, annotation, is_ours
from bentos.targets.kubernetes.routes import clusters, http_route, services, shadow_route, sticky_policy
from bentos.targets.kubernetes.settings import KubernetesSettings
from bentos.targets.target import LeaseLost

# On each main route: Envoy's clusters and their versions, since when, and the last state that the gateway had accepted.
CLUSTERS, CLUSTERS_SINCE, FORMER = "tidemill/clusters", "tidemill/clusters-since", "tidemill/former"
# A refused route is written again no sooner: each try takes the model's good route away for a moment.
REFUSED_RETRY_S = 60.0
_TRIES = 8
_POLL_S = 0.1

log = logging.getLogger(__name__)

Named = dict[tuple[str, str], Json]  # by kind and name


class RouteRefused(KubernetesError):
    """The gateway does not take a route. The one before is back in its place."""


@dataclass
class Traffic:
    """Keeps nothing but which routes were refused lately: the objects hold the rest."""

    settings: KubernetesSettings
    cluster: Cluster
    _refused: dict[str, tuple[str, float, str]] = field(default_factory=dict)

    def apply(self, routing: Routing, token: int) -> str:
        """Returns the version of what is confirmed. Safe to repeat, and safe to be killed in: the next call starts over.

        Models do not wait for each other: each one's route is changed although another's was refused. What leads to a
        route comes before it, what nothing leads to any more goes last. Raises LeaseLost when an object bears a newer
        token than ours, RouteRefused when the gateway refuses a route, KubernetesError when it stays silent.
        """
        live = self.live()
        for found in live.values():
            self._fence(found, token)
        self._check_services(routing)
        wanted, deadline_s = self._manifests(routing, live), time.monotonic() + self.settings.confirm_timeout_s
        confirmed: list[Json] = []
        troubles: dict[str, KubernetesError] = {}
        for manifest in wanted.values():
            model = _model(manifest)
            if model in troubles:  # no route without what it leads to
                continue
            try:
                confirmed.append(self._put(manifest, token, deadline_s))
            except KubernetesError as error:
                troubles[model] = error
        for (kind, name), found in live.items():
            # A policy or a shadow's route goes only once the model's own route no longer needs it.
            if (kind, name) not in wanted and _model(found) not in troubles:
                self.cluster.delete(kind, name)
                log.info("%s %s: gone", kind, name)
        if troubles:
            raise next(iter(troubles.values()))
        return version_of(confirmed)

    def applied_version(self) -> str | None:
        """None unless the gateway has accepted every route as it is now."""
        live = self.live().values()
        accepted = all(self._word(found)[0] == "accepted" for found in live)
        return version_of(live) if live and accepted else None

    def live(self) -> Named:
        """Our routes, and our policies where those are used."""
        kinds = ("HTTPRoute", *(("BackendTrafficPolicy",) if self.settings.sticky == "consistent-hash" else ()))
        return {(kind, name): found for kind in kinds for name, found in self.cluster.all(kind).items()}

    def _manifests(self, routing: Routing, live: Named) -> Named:
        """What has to be there, in the order of writing: what leads to a route before the route itself."""
        told: Named = {}
        for route in routing.routes:
            versions = [found.version for found in routing.endpoints if found.model == route.model]
            main = http_route(self.settings, route, versions)
            before = live.get(("HTTPRoute", main["metadata"]["name"]))
            named = clusters(self.settings, self.cluster.namespace, route)
            main["metadata"]["annotations"] = _counted(named, before)
            policy, shadow = sticky_policy(self.settings, route), shadow_route(self.settings, route)
            # A policy of a route that is not there yet would wait for it.
            for manifest in (shadow, main, policy) if before is None else (policy, shadow, main):
                if manifest is not None:
                    told[manifest["kind"], manifest["metadata"]["name"]] = manifest
        return told

    def _put(self, manifest: Json, token: int, deadline_s: float) -> Json:
        """Write one object and wait for the gateway's word; returns it as confirmed."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        spec = _text(manifest["spec"])
        refused = self._refused.get(name)
        if refused is not None and refused[0] == spec and time.monotonic() - refused[1] < REFUSED_RETRY_S:
            raise self._refusal(manifest, refused[2])
        written = self._write(manifest, token)
        word, why = self._await_word(written, deadline_s)
        if word == "accepted":
            self._refused.pop(name, None)
            return self._reread(kind, name)
        if word == "refused":
            self._refused[name] = (spec, time.monotonic(), why)
            self._undo(kind, name, token)
            raise self._refusal(manifest, why)
        raise KubernetesError(
            f"{kind} {name} of {_model(manifest)}",
            expected=f"the gateway's word on it within {self.settings.confirm_timeout_s:g} s",
            got=why,
            remedy=f"see that the Gateway {self.settings.gateway} is programmed and its controller runs",
        )

    def _write(self, manifest: Json, token: int) -> Json:
        """Compare-and-set: what was read is what is replaced, and its token is not newer than ours."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        for _ in range(_TRIES):
            live = self.cluster.get(kind, name)
            if live is not None and not is_ours(live, self.settings.installation):
                raise foreign(kind, name)
            if live is not None:
                self._fence(live, token)
            marked = _marked(manifest, token, self._former(live))
            try:
                # The first writer of a new route is the only one: the other meets its object, and its token.
                return self.cluster.create(marked) if live is None else self.cluster.apply(marked, live)
            except Changed:
                continue
        raise KubernetesError(
            f"{kind} {name} of {_model(manifest)}",
            expected="to replace what was read",
            got=f"a change by somebody else, {_TRIES} times in a row",
            remedy="see who else writes it; trying again is safe",
        )

    def _await_word(self, written: Json, deadline_s: float) -> tuple[Word, str]:
        """The gateway's word on what was written. A refusal counts once it has lasted: it may lag behind new Services."""
        refused_at_s: float | None = None
        found: Json | None = written
        while True:
            word, why = self._word(found) if found is not None else ("silent", "it is gone")
            now_s = time.monotonic()
            if word == "refused":
                refused_at_s = now_s if refused_at_s is None else refused_at_s
                if now_s - refused_at_s >= self.settings.refused_for_s:
                    return word, why
            else:
                refused_at_s = None
            if word == "accepted":
                return word, why
            if now_s > deadline_s:
                return "silent", why
            time.sleep(_POLL_S)
            found = self.cluster.get(written["kind"], written["metadata"]["name"])

    def _undo(self, kind: str, name: str, token: int) -> None:
        """Write back what the gateway had accepted before; a route that never was accepted goes."""
        live = self._reread(kind, name)
        former = annotation(live, FORMER)
        if not former:
            self.cluster.delete(kind, name)
            return
        told = json.loads(former)
        manifest = {key: live[key] for key in ("apiVersion", "kind")} | {"spec": told["spec"]}
        manifest["metadata"] = {"name": name, "labels": live["metadata"]["labels"]}
        manifest["metadata"]["annotations"] = _counted(told["clusters"], live)
        self._write(manifest, token)

    def _former(self, live: Json | None) -> str:
        if live is None:
            return ""
        if self._word(live)[0] != "accepted":
            return annotation(live, FORMER)
        return _text({"spec": live["spec"], "clusters": json.loads(annotation(live, CLUSTERS) or "{}")})

    def _word(self, found: Json) -> tuple[Word, str]:
        gateway = found["spec"]["parentRefs"][0]["name"] if found["kind"] == "HTTPRoute" else None
        return word_on(found, gateway)

    def _reread(self, kind: str, name: str) -> Json:
        found = self.cluster.get(kind, name)
        if found is None:
            raise Changed(f"{kind} {name}", expected="the object that was written", got="none", remedy="trying again")
        return found

    def _fence(self, found: Json, token: int) -> None:
        seen = int(annotation(found, LEASE_TOKEN) or 0)
        if seen > token:
            raise LeaseLost(
                f"{found['kind']} {found['metadata']['name']}",
                expected=f"a lease token of at most {token}, ours",
                got=f"{seen}: a newer holder has written it",
                remedy="nothing to do: the newer one acts",
            )

    def _check_services(self, routing: Routing) -> None:
        missing = services(self.settings, routing) - self.cluster.all("Service").keys()
        if missing:
            raise KubernetesError(
                "routes",
                expected="a Service for every version that they lead to",
                got=f"none for {', '.join(sorted(missing))}",
                remedy="trying again is safe: the Services are made first",
            )

    def _refusal(self, manifest: Json, why: str) -> RouteRefused:
        return RouteRefused(
            f"{manifest['kind']} {manifest['metadata']['name']} of {_model(manifest)}",
            expected=f"Gateway {self.settings.gateway} to accept it",
            got=why,
            remedy="the one before is back; see docs/kubernetes.md for what a gateway has to know",
        )


def version_of(objects: Iterable[Json]) -> str:
    """Changes with any of them: the API server numbers an object's generations."""
    told = sorted((one["metadata"]["uid"], one["metadata"].get("generation", 0)) for one in objects)
    return hashlib.sha256(_text(told).encode()).hexdigest()[:16]


def _counted(named: Mapping[str, str], before: Json | None) -> dict[str, str]:
    """Which of Envoy's clusters is which version, and since when: a name that changes its meaning begins a new count."""
    told = _text(named)
    since = datetime.now(UTC).isoformat()
    if before is not None and annotation(before, CLUSTERS) == told:
        since = annotation(before, CLUSTERS_SINCE) or since
    return {CLUSTERS: told, CLUSTERS_SINCE: since}


def _marked(manifest: Json, token: int, former: str) -> Json:
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), LEASE_TOKEN: str(token), FORMER: former}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def _model(found: Json) -> str:
    return str(found["metadata"]["labels"].get(MODEL, ""))


def _text(told: object) -> str:
    return json.dumps(told, sort_keys=True)
