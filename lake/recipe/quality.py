"""Published quality rules."""

from __future__ import annotations

from lake.recipe.section import Section


class Quality(Section):
    """Which of them a document must pass; none by default."""
