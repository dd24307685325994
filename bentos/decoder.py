"""One exported graph on ONNX Runtime with a key/value cache of fixed slots: prefill one slot, or step many at once.

The cache is one buffer that attention appends to in place (past and present are bound to the same memory), so a step
copies nothing. A slot is a row of that buffer; rows `0 … n-1` are stepped together, whatever their lengths: the
attention mask's row sums tell the kernel how many positions of each row count (GroupQueryAttention, `seqlens_k`).
The buffer is host memory also where CUDA runs the rest: for fp32 exports there is no other GroupQueryAttention kernel
than the CPU's (libonnxruntime_providers_cuda 1.31 has it for half and bfloat16 alone).
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lake.errors import TidemillError

GRAPH = "model.onnx"
_MAP_NORESERVE = 0x4000  # Linux; not among mmap's constants before Python 3.13
_NVIDIA = Path("/dev/nvidiactl")
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Decoder:
    """`n_slots` sequences of up to `context_length` tokens each. Not thread-safe: one thread drives it."""

    def __init__(self, graph: Path, *, n_slots: int, context_length: int, n_threads: int, spin: bool = False) -> None:
        self.n_slots, self.context_length = n_slots, context_length
        self._session = _session(graph, n_threads, spin)
        self.provider: str = self._session.get_providers()[0]
        inputs = {found.name: found for found in self._session.get_inputs()}
        self._past = [name for name in inputs if name.startswith("past_key_values.")]
        self._has_positions = "position_ids" in inputs
        if not self._past or set(inputs) - set(self._past) - {"input_ids", "attention_mask", "position_ids"}:
            raise TidemillError(
                str(graph),
                expected="inputs input_ids, attention_mask, past_key_values.* (and position_ids)",
                got=", ".join(sorted(inputs)[:6]),
                remedy="export the model again with this version of Tidemill",
            )
        sizes = json.loads((graph.parent / "genai_config.json").read_text())["model"]
        first = inputs[self._past[0]]
        self._cache = _Cache(
            n_tensors=len(self._past),
            n_slots=n_slots,
            row=(int(first.shape[1]), context_length, int(sizes["decoder"]["head_size"])),
            dtype=_DTYPES[first.type],
        )
        self.vocabulary: int = int(sizes["vocab_size"])
        logits = next(found for found in self._session.get_outputs() if found.name == "logits")
        self._only_last, self._logits_dtype = logits.shape[1] == 1, _DTYPES[logits.type]
        self._bindings: dict[tuple[int, int], Any] = {}

    def prefill(self, slot: int, tokens: NDArray[np.int64], start: int) -> NDArray[np.float32]:
        """Append tokens int64 `[n]` at position `start` of a slot; logits float32 `[vocabulary]` after the last."""
        n = len(tokens)
        mask = np.ones((1, start + n), dtype=np.int64)
        positions = np.arange(start, start + n, dtype=np.int64)[None]
        logits: NDArray[np.float32] = self._run(slot, tokens[None], mask, positions)[0]
        return logits

    def step(self, tokens: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
        """Append one token to each of the first rows; logits float32 `[n, vocabulary]`.

        `tokens` int64 `[n]`; `lengths` int64 `[n]` are the positions filled before this step, each at least 1.
        """
        mask = (np.arange(lengths.max() + 1) <= lengths[:, None]).astype(np.int64)
        return self._run(0, tokens[:, None], mask, lengths[:, None])

    def copy(self, source: int, target: int, n_positions: int) -> None:
        """Copy the first positions of one slot's cache to another."""
        self._cache.copy(source, target, n_positions)

    def release(self, slot: int, keep: int) -> None:
        """Give memory of a slot back to the system, all but that of its first `keep` positions."""
        self._cache.release(slot, keep)

    def _run(
        self, row: int, tokens: NDArray[np.int64], mask: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Logits float32 `[n, vocabulary]` after the last token of each of `n` rows from `row` on."""
        n_rows, n_tokens = tokens.shape
        binding = self._bound(row, n_rows)
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(tokens))
        binding.bind_cpu_input("attention_mask", mask)
        if self._has_positions:
            binding.bind_cpu_input("position_ids", np.ascontiguousarray(positions))
        logits = np.empty((n_rows, 1 if self._only_last else n_tokens, self.vocabulary), dtype=self._logits_dtype)
        binding.bind_output("logits", "cpu", 0, self._logits_dtype, logits.shape, logits.ctypes.data)
        self._session.run_with_iobinding(binding)
        return logits[:, -1].astype(np.float32, copy=False)

    def _bound(self, row: int, n_rows: int) -> Any:
        """The binding for a range of rows: made once, because it names two buffers for every layer's key and value."""
        found = self._bindings.get((row, n_rows))
        if found is None:
            found = self._session.io_binding()
            for index, name in enumerate(self._past):
                rows = self._cache.tensors[index][row : row + n_rows]
                place = ("cpu", 0, rows.dtype.type, rows.shape, rows.ctypes.data)
                found.bind_input(name, *place)
                found.bind_output(name.replace("past_key_values.", "present."), *place)
            self._bindings[row, n_rows] = found
        return found


class _Cache:
    """Keys and values of all layers: per tensor `[slots, heads, context, head_dim]`, committed page by page on use."""

    def __init__(self, *, n_tensors: int, n_slots: int, row: tuple[int, int, int], dtype: Any) -> None:
        heads, context, head_dim = row
        n_bytes = n_slots * heads * context * head_dim * np.dtype(dtype).itemsize
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._maps = [mmap.mmap(-1, n_bytes, flags=flags) for _ in range(n_tensors)]
        for mapped in self._maps:
            # A huge page would commit 2 MB for the first token of every head.
            mapped.madvise(mmap.MADV_NOHUGEPAGE)
        self.tensors = [
            np.frombuffer(mapped, dtype=dtype).reshape(n_slots, heads, context, head_dim) for mapped in self._maps
        ]

    def copy(self, source: int, target: int, n_positions: int) -> None:
        for tensor in self.tensors:
            tensor[target, :, :n_positions] = tensor[source, :, :n_positions]

    def release(self, slot: int, keep: int) -> None:
        _, heads, context, head_dim = self.tensors[0].shape
        per_position = head_dim * self.tensors[0].itemsize
        for mapped in self._maps:
            for head in range(heads):
                start = ((slot * heads + head) * context + keep) * per_position
                end = (slot * heads + head + 1) * context * per_position
                start += -start % mmap.PAGESIZE
                end -= end % mmap.PAGESIZE
                if end > start:
                    mapped.madvise(mmap.MADV_DONTNEED, start, end - start)


def _session(graph: Path, n_threads: int, spin: bool) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = n_threads
    # Threads that spin while they wait save a fifth of a step where nobody else computes. Beside a training run on the
    # same cores they wait for each other instead: twice the time of a step, and 1.6 times its processor time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    providers = ["CPUExecutionProvider"]
    if _NVIDIA.exists() and "CUDAExecutionProvider" in ort.get_available_providers():
        ort.preload_dlls()  # the CUDA libraries that pip installed
        providers.insert(0, "CUDAExecutionProvider")
    return ort.InferenceSession(str(graph), options, providers=providers)
