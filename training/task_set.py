"""The fixed task set: completions to choose from, scored by likelihood. It tells whether a model has forgotten much."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence


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


def accuracy(model: Any, tokenizer: Any, items: tuple[Item, ...], device: torch.device) -> float:
    """Share of items whose right choice has the highest mean log-likelihood per token (Gao et al., lm-eval `acc_norm`)."""
    right = 0
    for item in items:
        scores = _choice_scores(model, tokenizer, item, device)
        right += int(scores.argmax()) == item.answer
    return right / len(items)


def _choice_scores(model: Any, tokenizer: Any, item: Item, device: torch.device) -> torch.Tensor:
    """Mean log-likelihood of each choice after the prompt: float32 `[n_choices]`."""
    prompt = tokenizer.encode(item.prompt, add_special_tokens=False)
    endings = [tokenizer.encode(f" {choice}", add_special_tokens=False) for choice in item.choices]
    rows = [torch.tensor(prompt + ending) for ending in endings]
    # Causal attention: padding on the right cannot reach what is scored.
    tokens = pad_sequence(rows, batch_first=True, padding_value=tokenizer.eos_token_id).to(device)
    with torch.inference_mode():
        told = functional.log_softmax(model(input_ids=tokens).logits.float(), dim=-1)
    first = len(prompt) - 1
    return torch.stack(
        [
            told[row, first : first + len(ending)].gather(1, torch.tensor(ending, device=device)[:, None]).mean()
            for row, ending in enumerate(endings)
        ]
    )
