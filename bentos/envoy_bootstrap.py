"""Envoy's static configuration: listener, API key, limits, access log, local replies in OpenAI's error shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TYPE = "type.googleapis.com/"
ROUTES_NAME = "main"
METADATA_NAMESPACE = "tidemill"
# Two thousand tokens of chat history are about 10 kB; this leaves room and still bounds what a client can buffer here.
MAX_REQUEST_BYTES = 1 << 20
IDLE_TIMEOUT = "300s"

# Bounds of the buckets that durations are counted in, in ms: each a tenth above the one before, from 1 ms to a minute.
DURATION_BOUNDS_MS = tuple(round(1.1**power, 3) for power in range(117))

Json = dict[str, Any]


def render_bootstrap(
    *,
    dynamic: Path,
    access_log: Path,
    host: str,
    port: int,
    admin_port: int,
    api_key: str,
    stat_prefix: str = "gateway",
) -> Json:
    """The bootstrap document. Clusters and routes come from `dynamic`/{cds,rds}.json and are re-read when replaced."""
    return {
        "node": {"id": "tidemill", "cluster": "tidemill"},
        "admin": {"address": _address("127.0.0.1", admin_port)},
        # Histograms are merged when statistics are flushed; a verdict each second should not rest on older latencies.
        "stats_flush_interval": "1s",
        # Envoy's own bounds double or more: a version that is a quarter slower would hide within one of them.
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"suffix": "upstream_rq_time"}, "buckets": list(DURATION_BOUNDS_MS)}
            ]
        },
        "dynamic_resources": {"cds_config": config_source(dynamic, "cds")},
        "static_resources": {
            "listeners": [
                {
                    "name": "gateway",
                    "address": _address(host, port),
                    "per_connection_buffer_limit_bytes": 2 * MAX_REQUEST_BYTES,
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "http",
                                    "typed_config": _connection_manager(dynamic, access_log, api_key, stat_prefix),
                                }
                            ]
                        }
                    ],
                }
            ]
        },
    }


def config_source(dynamic: Path, kind: str) -> Json:
    """Filesystem xDS. The folder is watched, because a watch on a file that is replaced by rename can miss it."""
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(dynamic / f"{kind}.json"), "watched_directory": {"path": str(dynamic)}},
    }


def openai_error(message: str, kind: str, code: str | None) -> Json:
    """The body of an error as OpenAI's API shapes it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def _connection_manager(dynamic: Path, access_log: Path, api_key: str, stat_prefix: str) -> Json:
    return {
        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": stat_prefix,
        "rds": {"route_config_name": ROUTES_NAME, "config_source": config_source(dynamic, "rds")},
        "generate_request_id": True,
        "always_set_request_id_in_response": True,
        # No client counts as internal (the range is one that no client can have): their x-envoy-* headers are dropped
        # and their request ids replaced, because prediction logs are deduplicated by the id.
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "server_name": "tidemill",
        "common_http_protocol_options": {"idle_timeout": "600s"},
        "stream_idle_timeout": IDLE_TIMEOUT,
        "request_headers_timeout": "10s",
        "request_timeout": "30s",
        "access_log": [_access_log(access_log)],
        "local_reply_config": _local_replies(),
        "http_filters": [
            _filter("api_key_auth", "api_key_auth.v3.ApiKeyAuth", _api_keys(api_key)),
            _filter("buffer", "buffer.v3.Buffer", {"max_request_bytes": MAX_REQUEST_BYTES}),
            _filter("json_to_metadata", "json_to_metadata.v3.JsonToMetadata", _body_fields()),
            _filter("user_header", "header_mutation.v3.HeaderMutation", _user_header()),
            _filter("router", "router.v3.Router", {"suppress_envoy_headers": True}),
        ],
    }


def _filter(name: str, kind: str, config: Json) -> Json:
    return {"name": name, "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.http.{kind}", **config}}


def _api_keys(api_key: str) -> Json:
    return {
        "credentials": [{"key": api_key, "client": "tidemill"}],
        "key_sources": [{"header": "Authorization"}],
        "forwarding": {"hide_credentials": True},
    }


def _body_fields() -> Json:
    """Lift `model` (for routing) and `user` (for a sticky split) out of the JSON body."""

    def rule(field: str) -> Json:
        pair = {"metadata_namespace": METADATA_NAMESPACE, "key": field}
        return {"selectors": [{"key": field}], "on_present": pair}

    return {"request_rules": {"rules": [rule("model"), rule("user")]}}


def _user_header() -> Json:
    value = f"%DYNAMIC_METADATA({METADATA_NAMESPACE}:user)%"
    return {
        "mutations": {
            "request_mutations": [
                {"append": {"header": {"key": "x-user", "value": value}, "append_action": "ADD_IF_ABSENT"}}
            ]
        }
    }


def _access_log(path: Path) -> Json:
    return {
        "name": "file",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {
                "json_format": {
                    "at": "%START_TIME%",
                    "request_id": "%REQ(X-REQUEST-ID)%",
                    "method": "%REQ(:METHOD)%",
                    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
                    "model": f"%DYNAMIC_METADATA({METADATA_NAMESPACE}:model)%",
                    "status": "%RESPONSE_CODE%",
                    "detail": "%RESPONSE_CODE_DETAILS%",
                    "flags": "%RESPONSE_FLAGS%",
                    "duration_ms": "%DURATION%",
                    "request_bytes": "%BYTES_RECEIVED%",
                    "response_bytes": "%BYTES_SENT%",
                    "cluster": "%UPSTREAM_CLUSTER%",
                    "upstream": "%UPSTREAM_HOST%",
                    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                }
            },
        },
    }


def _local_replies() -> Json:
    """Envoy's own answers in OpenAI's error shape, so that the stock client raises its usual exceptions."""

    def mapper(status: int, message: str, kind: str, code: str | None) -> Json:
        return {
            "filter": {
                "status_code_filter": {
                    "comparison": {"op": "EQ", "value": {"default_value": status, "runtime_key": f"reply_{status}"}}
                }
            },
            "body_format_override": {
                "json_format": openai_error(message, kind, code),
                "content_type": "application/json",
            },
        }

    return {
        "mappers": [
            mapper(
                401,
                "missing or wrong API key: send it as 'Authorization: Bearer KEY'",
                "invalid_request_error",
                "invalid_api_key",
            ),
            mapper(
                413,
                f"the request is larger than {MAX_REQUEST_BYTES} bytes",
                "invalid_request_error",
                "request_too_large",
            ),
            mapper(503, "no replica can answer right now; try again in a moment", "server_error", "unavailable"),
            mapper(504, "the replica did not answer in time", "server_error", "timeout"),
        ]
    }
