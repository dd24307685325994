"""The fixed task set: completions to choose from, scored by likelihood. It tells whether a model has forgotten much."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.device import rows_per_pass


class Item(BaseModel):
    """`answer` is an index into `choices`."""

    model_config = ConfigDict(frozen=True)

    prompt: str
    choices: tuple[str, ...]
    answer: int


@cache
def fixed_items() -> tuple[Item, ...]:
    lines = (Path(__file__).parent / "tasks" / "fixed.jsonl").read_text().splitlines()
    return tuple(Item.model_validate(json.loads(line)) for line in lines)


@dataclass(frozen=True)
class _Row:
    """A prompt with one choice behind it: int64 `[n]`, of which the last `n_ending` are scored."""

    item: int
    choice: int
    tokens: Tensor
    n_ending: int


def accuracy(model: Any, tokenizer: Any, items: Sequence[Item], device: torch.device) -> float:
    """Share of items whose right choice has the highest mean log-likelihood per token (Gao et al., lm-eval `acc_norm`)."""
    scores = choice_scores(model, tokenizer, items, device)
    right = [of.index(max(of)) == item.answer for item, of in zip(items, scores, strict=True)]
    return sum(right) / len(items)


def choice_scores(model: Any, tokenizer: Any, items: Sequence[Item], device: torch.device) -> list[list[float]]:
    """Mean log-likelihood per token of every choice after its prompt, by item and choice."""
    scores: list[list[float]] = [[0.0] * len(item.choices) for item in items]
    # Rows of like length share a pass: little is spent on padding, and a pass is long enough to pay.
    rows = sorted(_rows(tokenizer, items), key=lambda row: len(row.tokens))
    while rows:
        longest = len(rows[-1].tokens)
        n = rows_per_pass(device, longest, len(rows))
        rows, batch = rows[:-n], rows[-n:]
        # Causal attention: padding on the right cannot reach what is scored.
        padded = pad_sequence([row.tokens for row in batch], batch_first=True, padding_value=tokenizer.eos_token_id)
        with torch.inference_mode():
            told = model(input_ids=padded.to(device), use_cache=False).logits.float().log_softmax(dim=-1)
        for at, row in enumerate(batch):
            end = len(row.tokens)
            likelihoods = told[at, end - row.n_ending - 1 : end - 1].cpu()  # position i tells of token i + 1
            scores[row.item][row.choice] = float(likelihoods.gather(1, row.tokens[-row.n_ending :, None]).mean())
    return scores


def _rows(tokenizer: Any, items: Sequence[Item]) -> Iterator[_Row]:
    for place, item in enumerate(items):
        prompt = tokenizer.encode(item.prompt, add_special_tokens=False)
        for number, choice in enumerate(item.choices):
            ending = tokenizer.encode(f" {choice}", add_special_tokens=False)
            yield _Row(place, number, torch.tensor(prompt + ending), len(ending))
