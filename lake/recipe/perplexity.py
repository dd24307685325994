"""Quality by a small language model."""

from __future__ import annotations

from lake.recipe.section import Section


class Perplexity(Section):
    """Which model scores, how many documents, and what follows from a score."""
