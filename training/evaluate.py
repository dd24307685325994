"""Challenger against champion against base, on one loaded base model whose adapters are switched."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import Tensor

from lake.bucket import Bucket, BucketAddress
from lake.recipe import Recipe
from lake.records import Checkpoint, Dataset, PerplexityScore, TaskScore
from training.base_model import base_model_folder, load_base, load_tokenizer
from training.data import pack_split
from training.device import has_native_bf16, pick_device
from training.perplexity import perplexity
from training.task_set import accuracy, fixed_items


@dataclass(frozen=True)
class Scores:
    """`perplexity` has one entry for held-out set `new` and, with a champion, one for `champion`."""

    perplexity: tuple[PerplexityScore, ...]
    task: TaskScore


def evaluate(
    *,
    checkpoint: Checkpoint,
    champion: Checkpoint | None,
    datasets: Sequence[Dataset],
    champion_datasets: Sequence[Dataset],
    recipe: Recipe,
    address: BucketAddress,
    cache: Path,
) -> Scores:
    """Perplexities on the test splits and accuracy on the fixed task set. Whether it wins is the gate's to say.

    With a champion, the recipe's `held_out_tokens` are shared by the two held-out sets.
    """
    bucket, device = Bucket(address), pick_device()
    folder = base_model_folder(recipe.base_model, cache)
    tokenizer = load_tokenizer(folder)
    bf16 = recipe.training.precision != "fp32" and has_native_bf16(device)
    sets = {"new": datasets}
    if champion is not None and champion_datasets:
        sets["champion"] = champion_datasets
    length, budget = recipe.training.sequence_length, recipe.gate.held_out_tokens // len(sets)
    held_out = {name: pack_split(bucket, tokenizer, of, "test", length, budget) for name, of in sets.items()}

    adapted = _with_adapters(load_base(folder, device), bucket, checkpoint, champion)
    contenders = ["base", "challenger"] + (["champion"] if champion else [])
    measured: dict[str, tuple[dict[str, float], float]] = {}
    for name in contenders:
        _switch(adapted, name)
        scores = {which: perplexity(adapted, rows, device, bf16) for which, rows in held_out.items()}
        measured[name] = (scores, accuracy(adapted, tokenizer, fixed_items(), device))
    return Scores(
        perplexity=tuple(_score(which, rows, measured) for which, rows in held_out.items()),
        task=TaskScore(
            base=measured["base"][1],
            champion=measured["champion"][1] if champion else None,
            challenger=measured["challenger"][1],
        ),
    )


def _score(which: str, rows: Tensor, measured: dict[str, tuple[dict[str, float], float]]) -> PerplexityScore:
    return PerplexityScore(
        held_out=which,
        n_tokens=rows[:, 1:].numel(),
        base=measured["base"][0][which],
        champion=measured["champion"][0][which] if "champion" in measured else None,
        challenger=measured["challenger"][0][which],
    )


def _with_adapters(base: Any, bucket: Bucket, checkpoint: Checkpoint, champion: Checkpoint | None) -> Any:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bucket.download_folder(checkpoint.adapter_prefix, folder / "challenger")
        adapted = PeftModel.from_pretrained(base, folder / "challenger", adapter_name="challenger")
        if champion is not None:
            bucket.download_folder(champion.adapter_prefix, folder / "champion")
            adapted.load_adapter(folder / "champion", adapter_name="champion")
    return adapted.eval()


def _switch(adapted: Any, name: str) -> None:
    """Make the model be the base or one of its adapters."""
    if name == "base":
        adapted.base_model.disable_adapter_layers()
    else:
        adapted.base_model.enable_adapter_layers()
        adapted.set_adapter(name)
