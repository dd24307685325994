"""Domains and quotas."""

from __future__ import annotations

from lake.recipe.section import Section


class Mix(Section):
    """Which domains there are, and how much of each is kept."""
