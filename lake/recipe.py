"""The recipe: one YAML file describes one model, from cleaning rules to rollout plan and drift policy."""

from __future__ import annotations

import reprlib
from typing import Annotated, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from lake.errors import RecipeError

# A few lines of YAML can unfold into so many values that a whole repr would not end.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 4, 100

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PrepareRules(Section):
    """Cleaning and deduplication of one drop."""

    languages: tuple[str, ...] = Field(default=("en",), description="ISO 639-1 codes kept; empty keeps all")
    min_language_confidence: Share = 0.5
    min_characters: int = Field(default=150, ge=1)
    max_characters: int = Field(default=20_000, ge=1, description="longer documents are split at paragraphs")
    max_repetition: Share = Field(default=0.5, description="share of characters in repeated lines or 5-word sequences")
    min_letters: Share = Field(default=0.5, description="share of letters among visible characters")
    max_hamming: int = Field(default=8, ge=0, le=12, description="SimHash bits that candidates may differ in")
    min_jaccard: Share = Field(default=0.8, description="of 5-word shingles; candidates below it are kept")
    redact: tuple[Literal["email", "phone", "key"], ...] = ("email", "phone", "key")
    text_field: str = Field(default="text", description="column or JSON field that holds the text")
    validation_share: Share = 0.05
    test_share: Share = 0.05
    max_object_bytes: int = Field(default=2_000_000_000, ge=1, description="decompressed size of one object")
    max_record_bytes: int = Field(default=8_000_000, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share that leave something to train on, below 1 together")
        if self.min_characters > self.max_characters:
            raise ValueError(f"min_characters of at most max_characters, {self.max_characters}")
        return self


class CheckRules(Section):
    """Great Expectations' bounds on the prepared drop."""

    min_documents: int = Field(default=20, ge=1)
    max_duplicate_rate: Share = 0.9
    max_reject_rate: Share = Field(default=0.6, description="share rejected for other reasons than duplication")
    max_pii_leak_rate: Share = 0.0
    min_median_words: int = Field(default=20, ge=0)
    max_p95_words: int = Field(default=5_000, ge=1)


class Training(Section):
    """LoRA fine-tuning."""

    method: Literal["lora"] = "lora"
    rank: int = Field(default=16, ge=1, le=256)
    alpha: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=6e-4, gt=0, lt=1)
    steps: int = Field(default=40, ge=1)
    batch_size: int = Field(default=4, ge=1, description="sequences per step")
    sequence_length: int = Field(default=256, ge=8, description="tokens per sequence")
    warmup_steps: int = Field(default=4, ge=0)
    checkpoint_every_steps: int = Field(default=10, ge=1)
    precision: Literal["auto", "bf16", "fp32"] = Field(default="auto", description="auto: bf16 where it is native")
    seed: int = 0
    init: Literal["champion", "base"] = Field(default="champion", description="weights a later version starts from")
    replay_share: Share = Field(default=0.25, description="share of sequences drawn from what the champion has seen")
    min_documents: int = Field(default=200, ge=1, description="smaller drops wait for the next training")
    validation_tokens: int = Field(default=4_096, ge=64)


class Gate(Section):
    """When a challenger wins."""

    min_gain_over_base: Share = Field(
        default=0.10, description="1 - perplexity / base perplexity, on new held-out data"
    )
    max_perplexity_ratio: float = Field(default=1.0, gt=0, description="challenger / champion on new held-out data")
    max_regression: float = Field(
        default=1.10, gt=0, description="challenger / champion on the champion's held-out data"
    )
    max_task_drop: Share = Field(default=0.15, description="accuracy points on the fixed task set")
    held_out_tokens: int = Field(default=8_192, ge=64)


class Export(Section):
    """ONNX export and quantization."""

    quantization: Literal["int8", "none"] = "int8"
    max_logit_diff: float = Field(default=1e-2, gt=0)
    min_top1_agreement: Share = 0.99
    max_quantization_loss: float = Field(default=0.015, ge=0, description="relative rise of perplexity")


class RolloutStep(Section):
    """One step of the plan. `share` is mirrored traffic for shadow, live traffic otherwise."""

    stage: Literal["shadow", "ab", "canary"]
    share: Annotated[float, Field(gt=0, le=1)]
    min_requests: int = Field(default=30, ge=1, description="answered by the challenger before a verdict")
    max_duration_s: float = Field(default=3600, gt=0, description="without a verdict by then: roll back")


class Rollout(Section):
    """How a challenger replaces the champion. The first version of a model goes straight to full."""

    steps: tuple[RolloutStep, ...] = (
        RolloutStep(stage="shadow", share=1.0),
        RolloutStep(stage="ab", share=0.5),
        RolloutStep(stage="canary", share=0.75),
    )
    max_error_rate_increase: Share = Field(default=0.02, description="over the champion's, in points")
    max_latency_ratio: float = Field(default=2.0, gt=0, description="challenger's mean latency over the champion's")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        order = {"shadow": 0, "ab": 1, "canary": 2}
        kinds = [order[step.stage] for step in self.steps]
        if kinds != sorted(kinds):
            raise ValueError("stages in the order shadow, ab, canary")
        shares = [step.share for step in self.steps if step.stage == "canary"]
        if shares != sorted(shares):
            raise ValueError("canary shares that grow")
        return self


class Monitoring(Section):
    """Prediction logging, drift detection and what follows from it."""

    log_share: Share = Field(default=1.0, description="share of requests logged")
    reference_requests: int = Field(default=500, ge=20)
    window_requests: int = Field(default=500, ge=20)
    max_p_value: float = Field(default=0.005, gt=0, lt=1, description="of the MMD permutation test")
    permutations: int = Field(default=2_000, ge=200)
    confirm_windows: int = Field(default=2, ge=1, description="consecutive drifted windows that confirm drift")
    interval_s: float = Field(default=60, gt=0)
    retrain: bool = True


class Erasure(Section):
    """What follows for the versions that have seen erased documents. The data itself is erased in any case."""

    rebuild: Literal["next", "now", "never"] = Field(
        default="next",
        description="next: the next training starts from the base model; now: and begins at once; never: neither",
    )


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
    check: CheckRules = CheckRules()
    training: Training = Training()
    gate: Gate = Gate()
    export: Export = Export()
    rollout: Rollout = Rollout()
    monitoring: Monitoring = Monitoring()
    erasure: Erasure = Erasure()


def parse_recipe(text: str, where: str) -> Recipe:
    """Parse YAML into a recipe. Raises RecipeError that names the field, the value and what is allowed."""
    try:
        loaded = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: dates that do not exist
        raise RecipeError(
            where,
            expected="YAML",
            got=" ".join(str(error).split()),
            remedy="correct the recipe and put it into the bucket again",
        ) from error
    try:
        return Recipe.model_validate(loaded)
    except ValidationError as error:
        raise RecipeError(
            f"{where}, field {'; '.join(_place(e['loc']) for e in error.errors())}",
            expected="; ".join(map(_allowed, error.errors())),
            got="; ".join(_SHORT.repr(e.get("input"))[:200] for e in error.errors()),
            remedy="correct the recipe and put it into the bucket again",
        ) from error


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(map(str, loc)) or "(whole file)"


def _allowed(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return f"one of {', '.join(_fields_at(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"a value for {error['loc'][-1]}"
    return error["msg"].removeprefix("Value error, ")


def _fields_at(loc: tuple[int | str, ...]) -> list[str]:
    """The names that a section may hold. `loc` leads to it from the top; numbers in it are places in a list."""
    section: type[BaseModel] = Recipe
    for name in (part for part in loc if isinstance(part, str)):
        found = section.model_fields[name].annotation
        section = next(
            kind for kind in (*get_args(found), found) if isinstance(kind, type) and issubclass(kind, Section)
        )
    return list(section.model_fields)
