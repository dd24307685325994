"""Envoy's dynamic configuration as pure functions of a Routing: clusters (CDS) and routes (RDS)."""

from __future__ import annotations

import json
from collections.abc import Iterable

from bentos.envoy_bootstrap import IDLE_TIMEOUT, METADATA_NAMESPACE, ROUTES_NAME, TYPE, Json, openai_error
from bentos.routing import Endpoint, ModelRoute, Routing, cluster_name, fallback_cluster_name, shadow_cluster_name

WEIGHT_TOTAL = 10_000
USER_COOKIE = "tidemill-user"
SHADOW_HEADER = "x-tidemill-shadow"


# Unlimited in practice: the replica itself bounds its queue and answers 429. The default of three retries at a time
# would fail requests when a replica dies under load.
CIRCUIT_BREAKERS: Json = {
    "thresholds": [{"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 4096, "max_retries": 1024}]
}


def render_clusters(routing: Routing) -> list[Json]:
    """One cluster per endpoint, one per shadow, two fallback pairs per live split. Sorted by name."""
    ports = {(endpoint.model, endpoint.version): endpoint.port for endpoint in routing.endpoints}
    clusters = [_replica_cluster(endpoint) for endpoint in routing.endpoints]
    for route in routing.routes:
        if route.challenger is None:
            continue
        if route.stage == "shadow":
            port = ports[route.model, route.challenger]
            clusters.append(_cluster(shadow_cluster_name(route.model, route.challenger), port))
        else:
            clusters.append(_fallback_cluster(route.model, route.challenger, route.champion))
            clusters.append(_fallback_cluster(route.model, route.champion, route.challenger))
    return sorted(clusters, key=lambda cluster: str(cluster["name"]))


def render_routes(routing: Routing, created: int = 0) -> Json:
    """The RouteConfiguration. `created` (Unix seconds) is shown by `GET /v1/models`.

    Order decides: fixed paths, pinned versions, models by the body's `model`, models by path prefix, then 400 and 404.
    """
    models = [route.model for route in routing.routes]
    listing = {"object": "list", "data": [_model_card(model, created) for model in models]}
    routes = [
        {
            "match": {"path": "/healthz"},
            "direct_response": {"status": 200, "body": {"inline_string": "ok\n"}},
            "typed_per_filter_config": {
                "api_key_auth": {"@type": TYPE + "envoy.config.route.v3.FilterConfig", "disabled": True}
            },
        },
        _answer({"path": "/v1/models", "headers": [_header(":method", "GET")]}, 200, listing),
        *(_answer({"path": f"/v1/models/{model}"}, 200, _model_card(model, created)) for model in models),
        *(pinned for endpoint in routing.endpoints for pinned in _pinned_routes(endpoint)),
        *({"match": _by_body(route.model), "route": _action(route)} for route in routing.routes),
        *(
            {"match": {"prefix": f"/{route.model}/v1/"}, "route": {**_action(route), "prefix_rewrite": "/v1/"}}
            for route in routing.routes
        ),
        _no_model_given(),
        _unknown_model(models),
        _answer({"prefix": "/"}, 404, openai_error("no such path; see /v1/models", "invalid_request_error", None)),
    ]
    return {
        "@type": TYPE + "envoy.config.route.v3.RouteConfiguration",
        "name": ROUTES_NAME,
        # Clusters are confirmed before routes are written; a check here would reject a whole update for one of them.
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": 1 << 20,
        "request_headers_to_remove": [SHADOW_HEADER],  # only the gateway marks mirrored requests
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
    }


def _cluster(name: str, port: int) -> Json:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
                    ]
                }
            ],
        },
        "circuit_breakers": CIRCUIT_BREAKERS,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                # Below uvicorn's keep-alive of 5 s, so that a request never meets a connection being closed.
                "common_http_protocol_options": {"idle_timeout": "4s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _replica_cluster(endpoint: Endpoint) -> Json:
    """A replica that takes live traffic: health-checked, and set aside for seconds when it fails in a row.

    The panic threshold of 1% keeps a lone unhealthy replica in use, for there is no other to send to; with a fallback
    cluster in front, the other version is chosen before this one is tried.
    """
    return {
        **_cluster(cluster_name(endpoint.model, endpoint.version), endpoint.port),
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}},
        "health_checks": [
            {
                # A replica that computes on every core answers its health check late; a dead one refuses at once.
                "timeout": "5s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/readyz"},
            }
        ],
        "outlier_detection": {
            "consecutive_5xx": 5,
            "consecutive_gateway_failure": 5,
            "consecutive_local_origin_failure": 2,
            "split_external_local_origin_errors": True,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_time": "10s",
            "max_ejection_percent": 100,
            # Only outliers in a row count here; rates are the rollout controller's business.
            "enforcing_success_rate": 0,
        },
    }


def _fallback_cluster(model: str, first: str, second: str) -> Json:
    return {
        "name": fallback_cluster_name(model, first, second),
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": CIRCUIT_BREAKERS,  # retries count against this cluster, as routes name it
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": TYPE + "envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": [cluster_name(model, first), cluster_name(model, second)],
            },
        },
    }


def _action(route: ModelRoute) -> Json:
    if route.challenger is None or route.stage == "shadow":
        action = _to({"cluster": cluster_name(route.model, route.champion)})
        if route.challenger is not None:
            fraction = {"numerator": round(route.share * WEIGHT_TOTAL), "denominator": "TEN_THOUSAND"}
            action["request_mirror_policies"] = [
                {
                    "cluster": shadow_cluster_name(route.model, route.challenger),
                    "runtime_fraction": {"default_value": fraction},
                    "disable_shadow_host_suffix_append": True,
                    "request_headers_mutations": [
                        {
                            "append": {
                                "header": {"key": SHADOW_HEADER, "value": "true"},
                                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                            }
                        }
                    ],
                }
            ]
        return action
    weight = round(route.share * WEIGHT_TOTAL)
    split: Json = {
        "clusters": [
            {
                "name": fallback_cluster_name(route.model, route.champion, route.challenger),
                "weight": WEIGHT_TOTAL - weight,
            },
            {"name": fallback_cluster_name(route.model, route.challenger, route.champion), "weight": weight},
        ]
    }
    if route.sticky:
        split["use_hash_policy"] = True
    action = _to({"weighted_clusters": split}, fallback=True)
    if route.sticky:
        # A user stays with one version: by `user` of the body (the bootstrap makes a header of it), `x-user`, or a
        # cookie that a front end sets. Requests that name no user are split by weight. The gateway sets no cookie of
        # its own: the stock openai client keeps a jar, so one process would send all of its users to one version.
        action["hash_policy"] = [
            {"header": {"header_name": "x-user"}, "terminal": True},
            {"cookie": {"name": USER_COOKIE}, "terminal": True},
        ]
    return action


def _to(target: Json, fallback: bool = False) -> Json:
    """Where to, with time-outs that suit token streams and retries that clients do not notice.

    No route time-out (a stream lasts as long as its tokens), no per-try time-out; silence ends it. With a fallback the
    other version is tried at once, also when the first one died over the request: the only failure that a client
    would see of a dying challenger, at the price of a request that ran twice, once in vain (logs go by request id).
    A lone replica's requests run once, whatever becomes of it: one that kills its server would kill each new one. What
    has not left for it waits until it is started again, 12 s on average (Envoy draws each pause between 0 and 0.25,
    0.5, 1, 2, 2.5, 2.5 … s).
    """
    retry: Json = {"retry_on": "connect-failure,refused-stream,reset-before-request"}
    if not fallback:
        retry["num_retries"] = 12
        retry["retry_back_off"] = {"base_interval": "0.25s", "max_interval": "2.5s"}
    else:
        retry["retry_on"] += ",reset"
        retry["num_retries"] = 2
        retry["retry_priority"] = {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": TYPE + "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        }
    return {**target, "timeout": "0s", "idle_timeout": IDLE_TIMEOUT, "retry_policy": retry}


def _pinned_routes(endpoint: Endpoint) -> Iterable[Json]:
    """`model: "<model>:<version>"` or the header `x-tidemill-version: <version>` goes to that very replica."""
    to = _to({"cluster": cluster_name(endpoint.model, endpoint.version)})
    header = [_header("x-tidemill-version", endpoint.version)]
    yield {"match": _by_body(f"{endpoint.model}:{endpoint.version}"), "route": to}
    yield {"match": {**_by_body(endpoint.model), "headers": header}, "route": to}
    yield {
        "match": {"prefix": f"/{endpoint.model}/v1/", "headers": header},
        "route": {**to, "prefix_rewrite": "/v1/"},
    }


def _by_body(model: str) -> Json:
    return {
        "prefix": "/v1/",
        "dynamic_metadata": [
            {
                "filter": METADATA_NAMESPACE,
                "path": [{"key": "model"}],
                "value": {"string_match": {"exact": model}},
            }
        ],
    }


def _header(name: str, value: str) -> Json:
    return {"name": name, "string_match": {"exact": value}}


def _no_model_given() -> Json:
    match = {
        "prefix": "/v1/",
        "headers": [_header(":method", "POST")],
        "dynamic_metadata": [
            {
                "filter": METADATA_NAMESPACE,
                "path": [{"key": "model"}],
                "value": {"present_match": True},
                "invert": True,
            }
        ],
    }
    message = "the body has to be JSON (content-type application/json) with a field 'model'"
    return _answer(match, 400, openai_error(message, "invalid_request_error", "missing_model"))


def _unknown_model(models: list[str]) -> Json:
    message = f"no such model is live; live are: {', '.join(models) or 'none yet'}"
    return _answer({"prefix": "/v1/"}, 404, openai_error(message, "invalid_request_error", "model_not_found"))


def _model_card(model: str, created: int) -> Json:
    return {"id": model, "object": "model", "created": created, "owned_by": "tidemill"}


def _answer(match: Json, status: int, body: Json) -> Json:
    return {
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": json.dumps(body)}},
        "response_headers_to_add": [
            {
                "header": {"key": "content-type", "value": "application/json"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }
