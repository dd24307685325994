"""What a preparation depends on besides its objects: the recipe's rules, the files that they name, what was cut before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beam_jobs.mix.files import digest_of, digests_of
from beam_jobs.perplexity.scorer import BASE, HISTORY, REASON
from lake.recipe import Recipe
from lake.records import Dataset

# What a prepared dataset is the work of: another pattern of what is redacted makes another dataset, too.
CODE = "beam_jobs+lake/redact"


def prepare_parameters(recipe: Recipe) -> dict[str, Any]:
    """Parameters of the stage: another value of any of them makes another dataset. Raises RecipeError for a missing file."""
    rules = recipe.prepare
    parameters = rules.model_dump(mode="json")
    files: dict[str, str] = {}
    if rules.mix is not None:
        files |= digests_of(rules.mix)
        # Of two domains that match alike the first one wins, and the order of a mapping is no part of its JSON here.
        parameters["labels"] = rules.mix.labels
    if rules.perplexity is not None and rules.perplexity.model == BASE:
        parameters["base_model"] = recipe.base_model
    elif rules.perplexity is not None and rules.perplexity.model != HISTORY:
        folder = Path(rules.perplexity.model.removeprefix("file:"))
        files |= {
            str(path): digest_of(path, f"the recipe's file {path}")
            for path in sorted(folder.glob("*"))
            if path.is_file()
        }
    toxicity = rules.quality.toxicity
    if toxicity is not None and toxicity.file is not None:
        path = Path(toxicity.file.removeprefix("file:"))
        files[str(path)] = digest_of(path, f"the recipe's file {path}")
    return parameters | ({"files": files} if files else {})


def rejected_share(history: Sequence[Dataset]) -> float:
    """Of the documents that were scored in these datasets, the share that was rejected for its perplexity."""
    scored = (REASON, "exact_duplicate", "near_duplicate", "over_quota")  # what comes after the scoring was scored, too
    n_scored = sum(dataset.n_kept + sum(dataset.rejected.get(each, 0) for each in scored) for dataset in history)
    return sum(dataset.rejected.get(REASON, 0) for dataset in history) / max(n_scored, 1)
