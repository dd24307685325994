"""What a bento knows of its model: written beside its source when it is built, read when it is served."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from pydantic import ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lake.errors import TidemillError
from lake.records import Record

FILE_NAME = "serving.json"


class ServingConfig(Record):
    """`log_share` is the recipe's; `created` is Unix seconds, shown by `/v1/models`."""

    model: str
    version: str
    log_share: float = Field(ge=0, le=1)
    created: int

    @property
    def tag(self) -> str:
        """Of the bento and of the model in BentoML's store."""
        return f"{self.model}:{self.version}"


class ModelFacts(Record):
    """`tidemill.json` beside the graph, as the export wrote it; a newer one may tell more."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    version: str
    variant: str
    checkpoint_id: str
    dataset_ids: tuple[str, ...]
    eos_token_ids: tuple[int, ...]
    context_length: int = Field(ge=2)


class ServingSettings(BaseSettings):
    """How one replica process serves, from `TIDEMILL_*` variables; the defaults suit a machine that others use too."""

    model_config = SettingsConfigDict(env_prefix="TIDEMILL_", frozen=True)

    threads: int = Field(default=0, ge=0, description="for one step of the model; 0: all processors")
    spin: bool = Field(default=False, description="threads wait actively: faster where nobody else computes")
    slots: int = Field(default=16, ge=1, le=256, description="requests that are generated at once")
    queue: int = Field(default=64, ge=1, description="requests that may wait; the next one is answered 429")
    log_flush_s: float = Field(default=5.0, gt=0, description="how often the prediction log is written")
    inject_error_rate: float = Field(default=0.0, ge=0, le=1, description="for drills: share of requests that fail")
    variant: str = Field(
        default="", pattern=r"^([a-z0-9-]{1,16})?$", description="in place of the version: in answers, log and metrics"
    )
    system_prompt: str = Field(
        default="", description="of chats that bring none; percent-encoded, as a supervisor may replace $NAMES in it"
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="of requests that leave it open")
    top_p: float | None = Field(default=None, gt=0, le=1, description="of requests that leave it open")
    max_tokens: int | None = Field(default=None, ge=1, description="of requests that leave it open")

    @field_validator("system_prompt")
    @classmethod
    def _decoded(cls, given: str) -> str:
        return unquote(given)

    @property
    def n_threads(self) -> int:
        return self.threads or len(os.sched_getaffinity(0))


def load_serving_settings() -> ServingSettings:
    """Raises TidemillError naming the variable that is wrong."""
    try:
        return ServingSettings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"TIDEMILL_{'_'.join(map(str, first['loc'])).upper()}"
        raise TidemillError(
            f"setting {name}",
            expected=first["msg"].lower(),
            got=repr(first.get("input")),
            remedy=f"correct or unset {name}",
        ) from error


def read_config(folder: Path) -> ServingConfig:
    return ServingConfig.model_validate_json(_text(folder / FILE_NAME))


def read_facts(folder: Path) -> ModelFacts:
    return ModelFacts.model_validate_json(_text(folder / "tidemill.json"))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise TidemillError(
            str(path), expected="a file of the bento", got=str(error), remedy="package the model again"
        ) from error
