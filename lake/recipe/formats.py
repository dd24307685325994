"""How objects are read."""

from __future__ import annotations

from lake.recipe.section import Section


class Formats(Section):
    """Columns of structured formats, and the limits of what is unpacked."""
