"""The bounds of the data gate."""

from __future__ import annotations

from pydantic import Field

from lake.recipe.section import Section, Share


class CheckRules(Section):
    """Great Expectations' bounds on the prepared drop."""

    min_documents: int = Field(default=20, ge=1)
    max_duplicate_rate: Share = 0.9
    max_reject_rate: Share = Field(default=0.6, description="share rejected for other reasons than duplication")
    max_pii_leak_rate: Share = 0.0
    min_median_words: int = Field(default=20, ge=0)
    max_p95_words: int = Field(default=5_000, ge=1)
