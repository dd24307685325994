"""Mean negative log-likelihood and perplexity of a torch model on packed sequences."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.device import autocast, rows_per_pass


def mean_loss(model: Any, rows: Tensor, device: torch.device, bf16: bool) -> float:
    """Nats per predicted token over `rows` int64 `[n, sequence_length]`; every row predicts its tokens but the first."""
    total, n_tokens = 0.0, 0
    with torch.inference_mode(), autocast(device, bf16):
        for batch in rows.split(rows_per_pass(device, rows.shape[1], 8)):
            tokens = batch.to(device)
            logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
            loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
            total += float(loss)
            n_tokens += tokens[:, 1:].numel()
    return total / n_tokens


def perplexity(model: Any, rows: Tensor, device: torch.device, bf16: bool) -> float:
    """`exp` of the mean loss. Infinite rather than an OverflowError for a model that is lost."""
    loss = mean_loss(model, rows, device, bf16)
    return math.exp(loss) if loss < 700 else math.inf
