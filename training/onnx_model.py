"""An exported causal language model on ONNX Runtime: forward passes with a KV cache, and perplexity."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

Cache = dict[str, NDArray[np.float32]]


class OnnxModel:
    """A graph as onnxruntime_genai's builder writes it: `input_ids`, `attention_mask`, `past_key_values.*`."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # ONNX Runtime's GPU build offers CUDA on every machine, and complains at length where there is none.
        wanted = ["CUDAExecutionProvider"] if torch.cuda.is_available() else []
        wanted.append("CPUExecutionProvider")
        self.session = ort.InferenceSession(str(path), options, providers=wanted)
        # The graph names the head's width without telling it.
        self._head_dim: int = json.loads((path.parent / "genai_config.json").read_text())["model"]["decoder"][
            "head_size"
        ]
        self._past = [i for i in self.session.get_inputs() if i.name.startswith("past_key_values.")]
        self._has_positions = any(i.name == "position_ids" for i in self.session.get_inputs())

    def forward(self, tokens: NDArray[np.int64], cache: Cache | None = None) -> tuple[NDArray[np.float32], Cache]:
        """Logits float32 `[batch, n, vocabulary]` of int64 `[batch, n]`, and the cache with them appended.

        With a cache, more than one row or more than one token, not both: ONNX Runtime's attention on the CPU asks for it.
        """
        batch, n = tokens.shape
        past = cache or {i.name: self._empty(i.shape, batch) for i in self._past}
        n_past = next(iter(past.values())).shape[2]
        feeds: dict[str, NDArray[Any]] = {
            "input_ids": tokens,
            "attention_mask": np.ones((batch, n_past + n), dtype=np.int64),
            **past,
        }
        if self._has_positions:
            feeds["position_ids"] = np.tile(np.arange(n_past, n_past + n, dtype=np.int64), (batch, 1))
        logits, *present = self.session.run(None, feeds)
        names = [output.name for output in self.session.get_outputs()][1:]
        kept = {name.replace("present.", "past_key_values."): value for name, value in zip(names, present, strict=True)}
        return logits, kept

    def perplexity(self, rows: NDArray[np.int64]) -> float:
        """exp of the mean negative log-likelihood over int64 `[n, length]`; every row predicts all but its first."""
        total, n_tokens = 0.0, 0
        for place in range(len(rows)):  # one at a time: a batch is no faster, and its logits are large
            tokens = rows[place : place + 1]
            logits = self.forward(tokens)[0][:, :-1]
            top = logits.max(axis=-1, keepdims=True)
            log_sum = np.log(np.exp(logits - top).sum(axis=-1)) + top[..., 0]
            chosen = np.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
            total += float((log_sum - chosen).sum())
            n_tokens += chosen.size
        return math.exp(min(total / n_tokens, 700.0))

    def _empty(self, shape: list[int | str], batch: int) -> NDArray[np.float32]:
        """A cache of length 0: `[batch, kv_heads, 0, head_dim]`."""
        return np.zeros((batch, int(shape[1]), 0, self._head_dim), dtype=np.float32)
