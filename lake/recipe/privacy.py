"""Personal data."""

from __future__ import annotations

from lake.recipe.section import Section


class Privacy(Section):
    """What is replaced by a placeholder beyond `redact`."""
