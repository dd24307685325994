"""What the gateway should do with each model's traffic, as data; and how Envoy's clusters are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from lake.ledger.rollout_state import Replica, RolloutState
from lake.records import Record

Stage = Literal["shadow", "ab", "canary", "full"]

SHADOW_SUFFIX = "/shadow"


class Endpoint(Record):
    """One replica: a server of `model`'s `version` on loopback."""

    model: str
    version: str
    port: int = Field(ge=1, le=65535)


class ModelRoute(Record):
    """One model's split. `share` is mirrored traffic for shadow, the challenger's live traffic for ab and canary.

    `sticky`: who names a user stays with one version.
    """

    model: str
    champion: str
    challenger: str | None = None
    stage: Stage = "full"
    share: float = Field(default=0.0, ge=0, le=1)
    sticky: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.challenger is None) != (self.stage == "full"):
            raise ValueError(f"{self.model}: a challenger in the stages shadow, ab and canary, and in no other")
        return self


class Routing(Record):
    """The gateway's whole job. Endpoints that no route names stay reachable by pinning a version."""

    routes: tuple[ModelRoute, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        served = [(endpoint.model, endpoint.version) for endpoint in self.endpoints]
        if len(set(served)) != len(served):
            raise ValueError("one endpoint per model and version")
        if len({route.model for route in self.routes}) != len(self.routes):
            raise ValueError("one route per model")
        for route in self.routes:
            for version in (route.champion, route.challenger):
                if version is not None and (route.model, version) not in served:
                    raise ValueError(f"an endpoint for {route.model}/{version}, which the route names")
        return self

    def canonical(self) -> Routing:
        """The same in a fixed order, so that equal routings compare equal."""
        return Routing(
            routes=tuple(sorted(self.routes, key=lambda route: route.model)),
            endpoints=tuple(sorted(self.endpoints, key=lambda endpoint: (endpoint.model, endpoint.version))),
        )


def routing_of(
    replicas: Iterable[Replica],
    champions: Mapping[str, str],
    running: Iterable[RolloutState],
    kept: frozenset[tuple[str, str]] = frozenset(),
    parked: frozenset[str] = frozenset(),
) -> Routing:
    """The routing that follows from the ledger: wanted replicas, the champion of each model, the running rollouts.

    A model has a route once its champion has a replica. A challenger takes part from its first step on. `kept` are
    versions that no route names any more but whose endpoints stay: some have requests in flight, others are champions
    that may be wanted back at once. `parked` are
    models whose challenger gets nothing new until it has answered the copies that it was sent as a shadow.
    """
    ports = {(replica.model, replica.version): replica.port for replica in replicas}
    steps = {
        state.model: (state.challenger, state.plan.steps[state.step_index])
        for state in running
        if state.step_index >= 0 and (state.model, state.challenger) in ports
    }
    routes = []
    for model, champion in champions.items():
        if (model, champion) not in ports:
            continue
        challenger, step = steps.get(model, (champion, None))
        if step is None or challenger == champion:
            routes.append(ModelRoute(model=model, champion=champion))
        elif model in parked:
            routes.append(ModelRoute(model=model, champion=champion, challenger=challenger, stage="shadow", share=0))
        else:
            routes.append(
                ModelRoute(
                    model=model,
                    champion=champion,
                    challenger=challenger,
                    stage=step.stage,
                    share=step.share,
                    sticky=step.stage != "shadow" and step.is_sticky,
                )
            )
    routed = {(route.model, version) for route in routes for version in (route.champion, route.challenger)}
    endpoints = tuple(
        Endpoint(model=model, version=version, port=port)
        for (model, version), port in ports.items()
        if (model, version) in routed or (model, version) in kept
    )
    return Routing(routes=tuple(routes), endpoints=endpoints).canonical()


def cluster_name(model: str, version: str) -> str:
    """One cluster per replica. No dots: Envoy would cut the name there when it makes Prometheus labels."""
    return f"{model}/{version}"


def shadow_cluster_name(model: str, version: str) -> str:
    return f"{model}/{version}{SHADOW_SUFFIX}"


def fallback_cluster_name(model: str, first: str, second: str) -> str:
    """Sends to `first`, and to `second` when `first` is gone."""
    return f"{model}/{first}+{second}"


def parse_cluster_name(name: str) -> tuple[str, str, bool] | None:
    """`(model, version, is_shadow)` of a replica's cluster; None for any other cluster."""
    plain = name.removesuffix(SHADOW_SUFFIX)
    model, separator, version = plain.partition("/")
    if not (separator and model and version) or "/" in version or "+" in version:
        return None
    return model, version, plain != name


def latency_source(name: str) -> tuple[str, str] | None:
    """The model and version whose latency a cluster's histogram shows: its first choice. None for foreign clusters."""
    parsed = parse_cluster_name(name.split("+")[0])
    return (parsed[0], parsed[1]) if parsed else None


def is_split(name: str) -> bool:
    """Whether a cluster is one of the pair that a live split sends to: what it was asked is what the split assigned."""
    return "+" in name
