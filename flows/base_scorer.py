"""A recipe that scores documents by its base model, with the place of that model's ONNX export."""

from __future__ import annotations

from pathlib import Path

from lake.recipe import Recipe


def with_base_model(recipe: Recipe, cache: Path) -> Recipe:
    """The recipe with `prepare.perplexity.model: base` resolved; it is exported into `cache` at first use.

    Raises TidemillError when it cannot be exported.
    """
    perplexity = recipe.prepare.perplexity
    if perplexity is None or perplexity.model != "base":
        return recipe
    from training.export import export_base  # torch, for this alone

    cache.mkdir(parents=True, exist_ok=True)
    found = perplexity.model_copy(update={"model": f"file:{export_base(recipe.base_model, cache)}"})
    return recipe.model_copy(update={"prepare": recipe.prepare.model_copy(update={"perplexity": found})})
