"""Quality by a small language model: documents that it finds hard to predict are seldom good prose."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lake.recipe.section import Section

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Perplexity(Section):
    """Which model scores, how many documents, and what follows from a score."""

    model: str = Field(
        default="history",
        pattern=r"^(history|base|file:/.+)$",
        description="history: n-grams of words, trained on the model's own documents; base: the recipe's base model on ONNX "
        "Runtime, a document a second on two cores; or file:/path of an ONNX export",
    )
    share: float = Field(
        default=1.0, gt=0, le=1, description="share of documents scored, drawn by the hash of their words"
    )
    thresholds: tuple[Positive, Positive] | None = Field(
        default=None, description="perplexities where middle and tail begin; without them, terciles of the history"
    )
    drop: tuple[Literal["middle", "tail"], ...] = Field(
        default=(), description="buckets whose documents are rejected as high_perplexity"
    )
    max_perplexity: Positive | None = Field(
        default=None, description="documents above it are rejected as high_perplexity, whatever their bucket"
    )
    bootstrap: bool = Field(
        default=True, description="without a history, take the drop itself: a document never judges itself"
    )
    order: int = Field(default=3, ge=1, le=5, description="words of an n-gram; for model: history")
    training_words: int = Field(
        default=2_000_000,
        ge=10_000,
        le=20_000_000,
        description="words of history that n-grams are counted in; 170 bytes of memory each while training",
    )
    max_tokens: int = Field(
        default=512, ge=2, le=32_768, description="first tokens of a document that an ONNX export reads"
    )
    batch_size: int = Field(default=4, ge=1, le=1_024, description="documents in one pass of an ONNX export")
    reference_documents: int = Field(
        default=200, ge=30, description="documents of the history that an ONNX export's thresholds come from"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.thresholds and self.thresholds[0] > self.thresholds[1]:
            raise ValueError("thresholds in ascending order")
        return self
