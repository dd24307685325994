"""How a version is trained, judged and exported."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lake.recipe.section import Section, Share


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
