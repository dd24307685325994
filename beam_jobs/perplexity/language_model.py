"""Perplexity by an exported causal language model on ONNX Runtime: the folder that Tidemill's own export leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lake.errors import TidemillError

_FILES = ("model.onnx", "genai_config.json", "tokenizer.json")
_NVIDIA = Path("/dev/nvidiactl")
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

Tokens = NDArray[np.int64]


class LanguageModel:
    """Not thread-safe. Made once a worker: loading takes seconds, and the weights are in memory once for each."""

    def __init__(self, folder: Path, *, max_tokens: int, batch_size: int, n_threads: int = 0) -> None:
        """`n_threads` 0 takes all cores. Raises TidemillError when the folder is no export that gives all logits."""
        self._session, self._tokenizer, sizes = _loaded(folder, n_threads)
        inputs = {found.name: found for found in self._session.get_inputs()}
        logits = next((found for found in self._session.get_outputs() if found.name == "logits"), None)
        if logits is None or not {"input_ids", "attention_mask"} <= set(inputs):
            raise _unusable(folder, f"inputs {', '.join(sorted(inputs)[:6])}")
        if logits.shape[1] == 1:
            raise _unusable(folder, "a graph fitted for serving, with logits of the last token only")
        self._past = [found for name, found in inputs.items() if name.startswith("past_key_values.")]
        self._has_positions = "position_ids" in inputs
        self._head_size = sizes.head
        self._batch_size = batch_size
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(min(max_tokens, sizes.context))

    def perplexities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Perplexity for each token of the first `max_tokens`, all but the first, which nothing predicts: float64 `[n]`.

        NaN for a text of fewer than two tokens. What else is in the batch does not matter but for rounding.
        """
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        found = np.full(len(texts), np.nan)
        for places in self._batches([len(each.ids) for each in encoded]):
            found[places] = self._of_batch([np.array(encoded[place].ids, np.int64) for place in places])
        return found

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places of texts of about the same length, the shortest first, so that few tokens are padding."""
        ordered = [place for place in np.argsort(lengths, kind="stable").tolist() if lengths[place] > 1]
        for start in range(0, len(ordered), self._batch_size):
            yield ordered[start : start + self._batch_size]

    def _of_batch(self, rows: Sequence[Tokens]) -> list[float]:
        lengths = np.array([len(row) for row in rows])
        longest = int(lengths.max())
        tokens = np.zeros((len(rows), longest), np.int64)
        for place, row in enumerate(rows):  # on the right: what follows a token does not change its logits
            tokens[place, : len(row)] = row
        feeds: dict[str, NDArray[Any]] = {
            "input_ids": tokens,
            "attention_mask": (np.arange(longest) < lengths[:, None]).astype(np.int64),
        }
        if self._has_positions:
            feeds["position_ids"] = np.tile(np.arange(longest, dtype=np.int64), (len(rows), 1))
        for past in self._past:
            shape = (len(rows), int(past.shape[1]), 0, self._head_size)
            feeds[past.name] = np.zeros(shape, _DTYPES[past.type])
        logits = self._session.run(["logits"], feeds)[0]
        return [_perplexity(logits[place, : len(row) - 1], row[1:]) for place, row in enumerate(rows)]


def _perplexity(logits: NDArray[Any], targets: Tokens) -> float:
    """exp of the mean negative log-likelihood of int64 `[n]` under logits `[n, vocabulary]`."""
    scores = logits.astype(np.float32, copy=False)
    top = scores.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(scores - top).sum(axis=-1, dtype=np.float64)) + top[:, 0]
    chosen = np.take_along_axis(scores, targets[:, None], axis=-1)[:, 0]
    return float(np.exp(min((log_sum - chosen).mean(), 700.0)))


class _Sizes(NamedTuple):
    """`head` is the width of an attention head, which the graph does not tell; `context` the most tokens it takes."""

    head: int
    context: int


def _loaded(folder: Path, n_threads: int) -> tuple[Any, Any, _Sizes]:
    """Session, tokenizer and sizes. Raises TidemillError for whatever is missing or broken."""
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise _unusable(folder, f"no {', '.join(missing)}")
    try:
        found = json.loads((folder / "genai_config.json").read_text())["model"]
        sizes = _Sizes(int(found["decoder"]["head_size"]), int(found["context_length"]))
        return _session(folder / "model.onnx", n_threads), Tokenizer.from_file(str(folder / "tokenizer.json")), sizes
    except Exception as error:  # of both libraries, which have no narrower type in common
        raise _unusable(folder, f"{type(error).__name__}: {error}") from error


def _session(graph: Path, n_threads: int) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = n_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # workers share the cores
    providers = ["CPUExecutionProvider"]
    if _NVIDIA.exists() and "CUDAExecutionProvider" in ort.get_available_providers():
        ort.preload_dlls()  # the CUDA libraries that pip installed
        providers.insert(0, "CUDAExecutionProvider")
    return ort.InferenceSession(str(graph), options, providers=providers)


def _unusable(folder: Path, got: str) -> TidemillError:
    return TidemillError(
        f"perplexity.model in {folder}",
        expected=f"a causal language model's ONNX export: {', '.join(_FILES)}, with logits of every token",
        got=got,
        remedy="name the folder of an export in the recipe, as it lies in the bucket below models/…/onnx/",
    )
