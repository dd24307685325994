"""How replicas run and how traffic is split in a cluster, from `TIDEMILL_KUBERNETES_*` variables."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lake.errors import TidemillError

PREFIX = "TIDEMILL_KUBERNETES_"
_DNS_LABEL = r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$"


class KubernetesSettings(BaseSettings):
    """Credentials are no setting: they come from the pod's service account, or from the kubeconfig's current context."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, populate_by_name=True)

    namespace: str | None = Field(default=None, description="unset: that of the service account or of the context")
    installation: str = Field(
        default="tidemill", pattern=_DNS_LABEL, description="begins every object's name; one controller looks after it"
    )
    image: str = Field(
        default="{model}:{version}",
        validation_alias=AliasChoices("TIDEMILL_BENTO_IMAGE", f"{PREFIX}IMAGE"),
        description="of a version's bento; {model} and {version} are replaced",
    )
    image_pull_secret: str | None = None
    replicas: int = Field(default=1, ge=1, le=1000, description="pods of each version")
    port: int = Field(default=3000, ge=1, le=65535, description="that the bento listens on")
    resources: dict[str, dict[str, str]] = Field(
        default={"requests": {"cpu": "1", "memory": "2Gi"}}, description="of each pod, as Kubernetes writes them (JSON)"
    )
    environment_secrets: tuple[str, ...] = Field(
        default=("tidemill-replica",), description="Secrets whose entries are the replicas' environment, too (JSON)"
    )
    service_account: str = Field(default="tidemill-replica", description="of the replicas; it needs no rights at all")
    run_as_user: int = Field(default=1034, ge=1, description="the user of images that BentoML builds")
    pre_stop_s: int = Field(
        default=30, ge=1, description="a pod goes on so long after the gateway was told to leave it"
    )
    termination_grace_s: int = Field(default=60, ge=1, description="SIGKILL comes so long after the pod's deletion")
    gateway: str = Field(default="tidemill", description="the Gateway that routes attach to")
    gateway_namespace: str | None = Field(default=None, description="unset: the namespace of the routes")
    hostnames: tuple[str, ...] = Field(default=(), description="that the routes answer to (JSON); empty: all")
    shadow_gateway: str | None = Field(
        default="tidemill-shadow",
        description="an internal Gateway that marks mirrored requests; empty: they go to the challenger unmarked",
    )
    shadow_service: str = Field(
        default="tidemill-shadow",
        description="the Service of its proxies, as NAME or NAMESPACE/NAME; another namespace needs a ReferenceGrant",
    )
    shadow_port: int = Field(default=8080, ge=1, le=65535, description="of its listener")
    sticky: Literal["consistent-hash", "session-persistence", "none"] = Field(
        default="consistent-hash",
        description="what keeps a user with a version: Envoy Gateway's BackendTrafficPolicy by the header x-user; "
        "GEP-1619 (experimental channel) by a cookie; or nothing",
    )
    confirm_timeout_s: float = Field(default=15.0, gt=0, description="for the gateway to say what it makes of a route")
    refused_for_s: float = Field(default=2.0, ge=0, description="a refusal counts once it has lasted so long")
    prometheus_url: str | None = Field(
        default=None, validation_alias=AliasChoices("TIDEMILL_PROMETHEUS_URL", f"{PREFIX}PROMETHEUS_URL"), repr=False
    )
    route_settle_s: float = Field(
        default=5.0, ge=0, description="after so long the proxies have surely taken a change of routes"
    )
    queries: dict[str, str] = Field(
        default={}, description="PromQL that replaces ours, by name (JSON); see docs/kubernetes.md"
    )

    @field_validator("shadow_gateway")
    @classmethod
    def _named(cls, name: str | None) -> str | None:
        return name or None

    @field_validator("image")
    @classmethod
    def _names_version(cls, pattern: str) -> str:
        if "{version}" not in pattern:
            raise ValueError("a pattern with {version}, else all versions would be the same")
        return pattern


def load_kubernetes_settings() -> KubernetesSettings:
    """Raises TidemillError naming the variable that is wrong."""
    try:
        return KubernetesSettings()
    except ValidationError as error:
        first = error.errors()[0]
        told = str(first["loc"][0])
        name = told if told.startswith("TIDEMILL_") else f"{PREFIX}{told.upper()}"
        raise TidemillError(
            f"setting {name}",
            expected=first["msg"].lower(),
            got=repr(first.get("input")),
            remedy=f"correct or unset {name}",
        ) from error
