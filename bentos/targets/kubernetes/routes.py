"""A model's traffic as objects of the Gateway API: pure functions of a Routing.

One HTTPRoute a model. Its rules, in this order: the split by path `/<model>/v1/`, the split by the header
`x-tidemill-model`, then two rules for each version that can be pinned. The more headers a rule matches, the earlier it
is tried, so pins come before splits. The Gateway API cannot look into bodies: the body's `model` routes nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable

from bentos.envoy_routes import SHADOW_HEADER, WEIGHT_TOTAL
from bentos.exchange import PIN_HEADER
from bentos.routing import ModelRoute, Routing
from bentos.targets.kubernetes.names import Json, labels, object_name
from bentos.targets.kubernetes.settings import KubernetesSettings
from bentos.users import USER_COOKIE, USER_HEADER

GATEWAY_API = "gateway.networking.k8s.io"
MODEL_HEADER = "x-tidemill-model"
N_SPLITS = 2
# A share below a thousandth is still a share.
_FRACTION_TOTAL = 1_000_000


def route_name(settings: KubernetesSettings, model: str) -> str:
    return object_name(settings.installation, model)


def shadow_route_name(settings: KubernetesSettings, model: str) -> str:
    return object_name(settings.installation, model, "shadow")


def http_route(settings: KubernetesSettings, route: ModelRoute, versions: Iterable[str]) -> Json:
    """The route of one model. `versions` are those that may be pinned: all with an endpoint."""
    header = {"type": "Exact", "name": MODEL_HEADER, "value": route.model}
    by_path, by_header = _path(f"/{route.model}/v1"), {**_path("/v1"), "headers": [header]}
    rewrite = {
        "type": "URLRewrite",
        "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v1"}},
    }
    rules = [_split(settings, route, by_path, [rewrite]), _split(settings, route, by_header, [])]
    for version in sorted(versions):
        pin = {"type": "Exact", "name": PIN_HEADER, "value": version}
        to = [_backend(settings, route.model, version, 1)]
        rules += [
            _rule({**by_path, "headers": [pin]}, [rewrite, _headers({}, [SHADOW_HEADER])], to),
            _rule({**by_header, "headers": [header, pin]}, [_headers({}, [SHADOW_HEADER])], to),
        ]
    return _http_route(settings, route.model, route_name(settings, route.model), settings.gateway, rules)


def shadow_route(settings: KubernetesSettings, route: ModelRoute) -> Json | None:
    """What the internal Gateway does with the model's mirrored requests: it marks them, and the challenger gets them.

    None when nothing is mirrored, or there is no such Gateway.
    """
    if settings.shadow_gateway is None or not _is_mirrored(route) or route.challenger is None:
        return None
    match = {**_path("/v1"), "headers": [{"type": "Exact", "name": MODEL_HEADER, "value": route.model}]}
    rule = _rule(match, [_headers({SHADOW_HEADER: "true"}, [])], [_backend(settings, route.model, route.challenger, 1)])
    name = shadow_route_name(settings, route.model)
    return _http_route(settings, route.model, name, settings.shadow_gateway, [rule])


def sticky_policy(settings: KubernetesSettings, route: ModelRoute) -> Json | None:
    """Envoy Gateway's policy that chooses the version by a hash of `x-user`; who names no user is split by weight."""
    if not route.sticky or settings.sticky != "consistent-hash":
        return None
    name = route_name(settings, route.model)
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "BackendTrafficPolicy",
        "metadata": _metadata(settings, route.model, name),
        "spec": {
            "targetRefs": [{"group": GATEWAY_API, "kind": "HTTPRoute", "name": name}],
            "mergeType": "StrategicMerge",  # time-outs and retries are the Gateway's policy
            "loadBalancer": {
                "type": "ConsistentHash",
                "consistentHash": {"type": "Headers", "headers": [{"name": USER_HEADER}]},
            },
        },
    }


def clusters(settings: KubernetesSettings, namespace: str, route: ModelRoute) -> dict[str, str]:
    """Envoy's clusters of a model's splits, as Envoy Gateway names them, and the version that each leads to.

    Pinned requests are left out: whoever pins has chosen, which would bias a comparison.
    """
    name, told = f"httproute/{namespace}/{route_name(settings, route.model)}", {}
    for rule in range(N_SPLITS):
        for position, (version, _) in enumerate(_weights(route)):
            told[f"{name}/rule/{rule}/backend/{position}"] = version
        if _is_mirrored(route) and route.challenger is not None and settings.shadow_gateway is None:
            # Numbered by the filter's place in the rule: it is the last one.
            told[f"{name}/rule/{rule}-mirror-{2 - rule}"] = route.challenger
    if shadow_route(settings, route) is not None and route.challenger is not None:
        shadow = f"httproute/{namespace}/{shadow_route_name(settings, route.model)}"
        told[f"{shadow}/rule/0/backend/0"] = route.challenger
    return told


def is_live(cluster: str, settings: KubernetesSettings, model: str) -> bool:
    """Whether a cluster's requests are those that the split assigned; mirrored ones are not."""
    return f"/{shadow_route_name(settings, model)}/" not in cluster and "-mirror-" not in cluster


def services(settings: KubernetesSettings, routing: Routing) -> set[str]:
    """Names of all Services that the routes lead to."""
    return {object_name(settings.installation, found.model, found.version) for found in routing.endpoints}


def _split(settings: KubernetesSettings, route: ModelRoute, match: Json, filters: list[Json]) -> Json:
    """Whoever claims to be a shadow is not believed; an unknown pin is no pin."""
    filters = [*filters, _headers({MODEL_HEADER: route.model}, [SHADOW_HEADER, PIN_HEADER])]
    if _is_mirrored(route):
        filters.append(_mirror(settings, route))
    to = [_backend(settings, route.model, version, weight) for version, weight in _weights(route)]
    rule = _rule(match, filters, to)
    if route.sticky and settings.sticky == "session-persistence":
        rule["sessionPersistence"] = {"type": "Cookie", "sessionName": USER_COOKIE}
    return rule


def _weights(route: ModelRoute) -> list[tuple[str, int]]:
    """The champion first, so that a rollout's stages change weights alone."""
    if route.challenger is None or route.stage == "shadow":
        return [(route.champion, WEIGHT_TOTAL)]
    weight = round(route.share * WEIGHT_TOTAL)
    return [(route.champion, WEIGHT_TOTAL - weight), (route.challenger, weight)]


def _is_mirrored(route: ModelRoute) -> bool:
    return route.stage == "shadow" and round(route.share * _FRACTION_TOTAL) > 0


def _mirror(settings: KubernetesSettings, route: ModelRoute) -> Json:
    if settings.shadow_gateway is None:
        to = {"name": object_name(settings.installation, route.model, route.challenger or ""), "port": settings.port}
    else:
        *namespace, name = settings.shadow_service.split("/")
        to = {"name": name, "port": settings.shadow_port} | ({"namespace": namespace[0]} if namespace else {})
    fraction = {"numerator": round(route.share * _FRACTION_TOTAL), "denominator": _FRACTION_TOTAL}
    return {
        "type": "RequestMirror",
        "requestMirror": {"backendRef": {"group": "", "kind": "Service", **to}, "fraction": fraction},
    }


def _backend(settings: KubernetesSettings, model: str, version: str, weight: int) -> Json:
    """The filter tells clients who has answered; and Envoy Gateway counts backends apart once one has a filter."""
    told = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [_pair(PIN_HEADER, version)]}}
    return {
        "group": "",
        "kind": "Service",
        "name": object_name(settings.installation, model, version),
        "port": settings.port,
        "weight": weight,
        "filters": [told],
    }


def _rule(match: Json, filters: list[Json], to: list[Json]) -> Json:
    # No time-out: a stream lasts as long as its tokens.
    return {"matches": [match], "filters": filters, "backendRefs": to, "timeouts": {"request": "0s"}}


def _path(prefix: str) -> Json:
    return {"path": {"type": "PathPrefix", "value": prefix}}


def _headers(added: dict[str, str], removed: list[str]) -> Json:
    change: Json = {"set": [_pair(*found) for found in added.items()]} if added else {}
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": change | ({"remove": removed} if removed else {})}


def _pair(name: str, value: str) -> Json:
    return {"name": name, "value": value}


def _http_route(settings: KubernetesSettings, model: str, name: str, gateway: str, rules: list[Json]) -> Json:
    parent: Json = {"group": GATEWAY_API, "kind": "Gateway", "name": gateway}
    if settings.gateway_namespace is not None:
        parent["namespace"] = settings.gateway_namespace
    spec: Json = {"parentRefs": [parent], "rules": rules}
    if settings.hostnames and gateway == settings.gateway:
        spec["hostnames"] = list(settings.hostnames)
    return {
        "apiVersion": f"{GATEWAY_API}/v1",
        "kind": "HTTPRoute",
        "metadata": _metadata(settings, model, name),
        "spec": spec,
    }


def _metadata(settings: KubernetesSettings, model: str, name: str) -> Json:
    told: Json = {"name": name, "labels": labels(settings.installation, model)}
    return told if settings.namespace is None else {**told, "namespace": settings.namespace}
