"""What a mix reads besides the recipe: a dataset's identity depends on it, too."""

from __future__ import annotations

import hashlib
from pathlib import Path

from beam_jobs.mix.tokens import WORDS
from lake.errors import RecipeError
from lake.recipe import Mix


def digests_of(mix: Mix) -> dict[str, str]:
    """SHA-256 of the seed files and the tokenizer, by path. Raises RecipeError for one that cannot be read."""
    named = [*mix.seeds, *([mix.tokenizer] if mix.tokenizer != WORDS else [])]
    return {
        path: digest_of(Path(path), f"prepare.mix, {path}") for path in (name.removeprefix("file:") for name in named)
    }


def digest_of(path: Path, where: str) -> str:
    """SHA-256 of a file that the recipe names. Raises RecipeError, which begins with `where`, when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecipeError(
            where,
            expected="a file that can be read",
            got=error.strerror or type(error).__name__,
            remedy="put it there, or take it out of the recipe",
        ) from error
