"""Cleaning, deduplication and selection of one drop."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from lake.recipe.formats import Formats
from lake.recipe.languages import LANGUAGES
from lake.recipe.mix import Mix
from lake.recipe.perplexity import Perplexity
from lake.recipe.privacy import Privacy
from lake.recipe.quality import Quality
from lake.recipe.section import Section, Share
from lake.redact import Kind


class PrepareRules(Section):
    """Cleaning and deduplication of one drop."""

    languages: tuple[str, ...] = Field(default=("en",), description="ISO 639-1 codes kept; empty keeps all")
    min_language_confidence: Share = 0.5
    min_characters: int = Field(default=150, ge=1)
    max_characters: int = Field(default=20_000, ge=1, description="longer documents are split at paragraphs")
    max_repetition: Share = Field(default=0.5, description="share of characters in repeated lines or 5-word sequences")
    min_letters: Share = Field(default=0.5, description="share of letters among visible characters")
    max_hamming: int = Field(default=18, ge=0, le=32, description="SimHash bits that candidates may differ in")
    min_jaccard: Share = Field(default=0.8, description="of 5-word shingles; candidates below it are kept")
    formats: Formats = Formats()
    quality: Quality = Quality()
    privacy: Privacy = Privacy()
    perplexity: Perplexity | None = Field(default=None, description="score documents by a small language model")
    mix: Mix | None = Field(default=None, description="domains, and how much of each is kept")
    redact: tuple[Kind, ...] = Field(
        default=("key", "email", "iban", "card", "national_id", "phone"),
        description="what patterns replace; ip is left to the recipe, as versions look like addresses",
    )
    text_field: str = Field(default="text", description="column or JSON field that holds the text")
    validation_share: Share = 0.05
    test_share: Share = 0.05
    max_object_bytes: int = Field(default=20_000_000_000, ge=1, description="decompressed size of one object")
    max_record_bytes: int = Field(default=8_000_000, ge=1)

    @field_validator("languages")
    @classmethod
    def _known(cls, found: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(found) - LANGUAGES):
            raise ValueError(
                f"ISO 639-1 codes such as en, de, fr, zh; {', '.join(unknown)} is none that texts are told by"
            )
        return found

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share that leave something to train on, below 1 together")
        if self.min_characters > self.max_characters:
            raise ValueError(f"min_characters of at most max_characters, {self.max_characters}")
        return self
