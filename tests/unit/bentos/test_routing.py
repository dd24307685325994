from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bentos.routing import (
    Endpoint,
    ModelRoute,
    Routing,
    cluster_name,
    fallback_cluster_name,
    latency_source,
    parse_cluster_name,
    routing_of,
    shadow_cluster_name,
)
from lake.ledger.rollout_state import Replica, RolloutState
from lake.recipe import Rollout, RolloutStep

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAN = Rollout(
    steps=(RolloutStep(stage="shadow", share=0.5), RolloutStep(stage="canary", share=0.25)),
)
models = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
versions = st.integers(1, 999).map(lambda number: f"v{number}")


def replica(version: str, port: int, model: str = "docs") -> Replica:
    return Replica(model=model, version=version, tag=f"{model}:{version}", port=port, environment={})


def rollout(step_index: int, challenger: str = "v2", champion: str | None = "v1") -> RolloutState:
    return RolloutState(
        rollout_id="docs-v2-1",
        model="docs",
        challenger=challenger,
        champion=champion,
        plan=PLAN,
        step_index=step_index,
        state="running",
        baseline=None,
        started_at=NOW,
        entered_at=NOW,
    )


REPLICAS = (replica("v1", 3100), replica("v2", 3101))


@given(models, versions)
def test_a_cluster_name_tells_model_and_version(model: str, version: str) -> None:
    assert parse_cluster_name(cluster_name(model, version)) == (model, version, False)
    assert parse_cluster_name(shadow_cluster_name(model, version)) == (model, version, True)
    assert "." not in cluster_name(model, version)


@given(models, versions, versions)
def test_latency_of_a_fallback_cluster_counts_for_its_first_choice(model: str, first: str, second: str) -> None:
    name = fallback_cluster_name(model, first, second)
    assert parse_cluster_name(name) is None
    assert latency_source(name) == (model, first)


@pytest.mark.parametrize("name", ["gateway", "docs/", "/v1", "docs/v1/v2", ""])
def test_foreign_clusters_are_no_replicas(name: str) -> None:
    assert parse_cluster_name(name) is None


def test_a_route_needs_the_endpoints_that_it_names() -> None:
    with pytest.raises(ValidationError, match="an endpoint for docs/v2"):
        Routing(
            routes=(ModelRoute(model="docs", champion="v1", challenger="v2", stage="ab", share=0.5),),
            endpoints=(Endpoint(model="docs", version="v1", port=3100),),
        )


@pytest.mark.parametrize(("challenger", "stage"), [(None, "canary"), ("v2", "full")])
def test_only_a_split_has_a_challenger(challenger: str | None, stage: str) -> None:
    with pytest.raises(ValidationError, match="a challenger in the stages"):
        ModelRoute.model_validate({"model": "docs", "champion": "v1", "challenger": challenger, "stage": stage})


@given(st.permutations(range(4)))
def test_equal_routings_compare_equal_in_any_order(order: list[int]) -> None:
    endpoints = [Endpoint(model=model, version="v1", port=3100 + n) for n, model in enumerate("abcd")]
    routes = [ModelRoute(model=model, champion="v1") for model in "abcd"]
    shuffled = Routing(routes=tuple(routes[n] for n in order), endpoints=tuple(endpoints[n] for n in order))
    assert shuffled.canonical() == Routing(routes=tuple(routes), endpoints=tuple(endpoints)).canonical()


def test_no_route_before_a_champion() -> None:
    routing = routing_of([replica("v1", 3100)], {}, [rollout(-1, challenger="v1", champion=None)])
    assert routing == Routing()


def test_a_challenger_takes_part_from_its_first_step_on() -> None:
    champions = {"docs": "v1"}
    waiting = routing_of(REPLICAS, champions, [rollout(-1)])
    assert waiting.routes == (ModelRoute(model="docs", champion="v1"),)
    assert [endpoint.version for endpoint in waiting.endpoints] == ["v1"]
    second = routing_of(REPLICAS, champions, [rollout(1)])
    assert second.routes == (ModelRoute(model="docs", champion="v1", challenger="v2", stage="canary", share=0.25),)
    assert [endpoint.port for endpoint in second.endpoints] == [3100, 3101]


def test_a_parked_challenger_gets_nothing_new() -> None:
    parked = routing_of(REPLICAS, {"docs": "v1"}, [rollout(1)], parked=frozenset({"docs"}))
    assert parked.routes == (ModelRoute(model="docs", champion="v1", challenger="v2", stage="shadow", share=0.0),)


def test_the_crowned_challenger_gets_everything_and_the_other_drains() -> None:
    crowned = routing_of(REPLICAS, {"docs": "v2"}, [], frozenset({("docs", "v1")}))
    assert crowned.routes == (ModelRoute(model="docs", champion="v2"),)
    assert [endpoint.version for endpoint in crowned.endpoints] == ["v1", "v2"]
    drained = routing_of(REPLICAS, {"docs": "v2"}, [])
    assert [endpoint.version for endpoint in drained.endpoints] == ["v2"]


def test_a_champion_without_replica_has_no_route_and_spoils_no_other() -> None:
    routing = routing_of([replica("v1", 3100, "other")], {"docs": "v1", "other": "v1"}, [])
    assert [route.model for route in routing.routes] == ["other"]


@given(
    st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), st.integers(3100, 3200), max_size=3),
    st.sampled_from([None, "v1", "v2", "v3"]),
    st.integers(-1, 1),
    st.sampled_from(["v1", "v2", "v3"]),
    st.sets(st.sampled_from(["v1", "v2", "v3"])),
)
def test_any_state_of_the_ledger_gives_a_valid_routing(
    ports: dict[str, int], champion: str | None, step_index: int, challenger: str, draining: set[str]
) -> None:
    routing = routing_of(
        [replica(version, port) for version, port in ports.items()],
        {"docs": champion} if champion else {},
        [rollout(step_index, challenger, champion)],
        frozenset(("docs", version) for version in draining),
    )
    assert {endpoint.version for endpoint in routing.endpoints} <= ports.keys()
    assert [route.champion for route in routing.routes] == [champion] * (champion in ports)
