"""The recipe: one YAML file describes one model, from cleaning rules to rollout plan and drift policy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lake.recipe.check import CheckRules
from lake.recipe.monitoring import Erasure, Monitoring
from lake.recipe.prepare import PrepareRules
from lake.recipe.rollout import Rollout
from lake.recipe.runner import Runner
from lake.recipe.section import Section
from lake.recipe.training import Export, Gate, Training


class Recipe(Section):
    """One model. The file's name under `recipes/` and `name` are the same."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")
    task: Literal["generate"] = "generate"
    base_model: str = Field(
        default="smollm2-135m-instruct",
        pattern=r"^(smollm2-135m-instruct|file:/.+)$",
        description="a shipped model, or file:/path of a safetensors model directory",
    )
    prepare: PrepareRules = PrepareRules()
    runner: Runner = Runner()
    check: CheckRules = CheckRules()
    training: Training = Training()
    gate: Gate = Gate()
    export: Export = Export()
    rollout: Rollout = Rollout()
    monitoring: Monitoring = Monitoring()
    erasure: Erasure = Erasure()
