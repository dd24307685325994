"""ONNX with KV cache, checked against torch, then 8-bit weights, checked against fp32."""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from peft import PeftModel
from torch import Tensor

from lake.bucket import Bucket, BucketAddress
from lake.errors import TidemillError
from lake.recipe import Export as ExportRules
from lake.recipe import Recipe
from lake.records import Checkpoint, Dataset, ExportedModel
from training.base_model import base_model_folder, load_base, load_tokenizer
from training.data import pack, read_texts, shuffled
from training.onnx_model import OnnxModel

PARITY_SEQUENCES, PARITY_LENGTH = 2, 128
# Both sides see the same tokens: the ratio of their perplexities is off by some 0.2 % (0.05 nats a token / √1,024).
QUANTIZATION_TOKENS = 1_024


def export(
    *,
    checkpoint: Checkpoint,
    datasets: Sequence[Dataset],
    recipe: Recipe,
    address: BucketAddress,
    cache: Path,
    workdir: Path,
    export_id: str,
    prefix: str,
) -> ExportedModel:
    """Merge the adapter, export, quantize, and upload the variant that passes to `prefix`. `datasets` are those trained on.

    fp32 ONNX has to match torch (logits and top-1, with and without KV cache). The 8-bit variant goes on when its
    perplexity rises by no more than the recipe allows, else fp32 does. Raises TidemillError when parity fails.
    """
    bucket, rules = Bucket(address), recipe.export
    base_folder = base_model_folder(recipe.base_model, cache)
    rows = _held_out_rows(bucket, load_tokenizer(base_folder), datasets)
    probe = rows[:PARITY_SEQUENCES, :PARITY_LENGTH]
    merged_folder, expected = _merged(base_folder, bucket, checkpoint, workdir, probe)
    fp32_folder = _built(merged_folder, workdir)

    fp32 = OnnxModel(fp32_folder / "model.onnx")
    logit_diff, top1 = _parity(expected, fp32, probe.numpy())
    if not (logit_diff <= rules.max_logit_diff and top1 >= rules.min_top1_agreement):
        raise TidemillError(
            f"export of {checkpoint.model} {checkpoint.version}",
            expected=f"logits within {rules.max_logit_diff} of torch, top-1 agreement ≥ {rules.min_top1_agreement}",
            got=f"{logit_diff:.2e} and {top1:.4f}",
            remedy="report this: the exporter does not fit the model's architecture",
        )
    del fp32, expected
    gc.collect()  # what follows does not have to fit beside them
    best = best_variant(fp32_folder, rows.numpy(), rules, workdir)
    _describe(best.folder, merged_folder, checkpoint, best.variant)
    bucket.upload_folder(best.folder, prefix)
    size_bytes = sum(path.stat().st_size for path in best.folder.iterdir())
    for scratch in (merged_folder, fp32_folder, workdir / "int8"):
        shutil.rmtree(scratch, ignore_errors=True)
    return ExportedModel(
        export_id=export_id,
        model=checkpoint.model,
        version=checkpoint.version,
        variant=best.variant,
        onnx_prefix=prefix,
        size_bytes=size_bytes,
        parity_max_logit_diff=logit_diff,
        parity_top1=top1,
        perplexity_fp32=best.perplexity_fp32,
        perplexity_variant=best.perplexity,
        quantization_loss=best.perplexity / best.perplexity_fp32 - 1,
    )


@dataclass(frozen=True)
class Variant:
    """The files that go on, and the perplexity they cost."""

    variant: Literal["fp32", "int8"]
    folder: Path
    perplexity_fp32: float
    perplexity: float


def best_variant(fp32_folder: Path, rows: NDArray[np.int64], rules: ExportRules, workdir: Path) -> Variant:
    """8-bit weights below `workdir` when perplexity on `rows` rises by no more than the rules allow, else fp32's."""
    perplexity_fp32 = OnnxModel(fp32_folder / "model.onnx").perplexity(rows)
    if rules.quantization == "int8":
        int8_folder = _quantized(fp32_folder, workdir)
        perplexity = OnnxModel(int8_folder / "model.onnx").perplexity(rows)
        if perplexity / perplexity_fp32 - 1 <= rules.max_quantization_loss:  # NaN does not
            return Variant("int8", int8_folder, perplexity_fp32, perplexity)
    return Variant("fp32", fp32_folder, perplexity_fp32, perplexity_fp32)


def quantize_8bit(source: Path, target: Path) -> None:
    """Weight-only 8-bit, blocks of 32, symmetric, int8 accumulation (MatMulNBits `accuracy_level=4`)."""
    # The quantizer tells about every node, several hundred lines a model.
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
    quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=8, block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    target.parent.mkdir(parents=True, exist_ok=True)
    quantizer.model.save_model_to_file(str(target), True)


def _merged(
    base_folder: Path, bucket: Bucket, checkpoint: Checkpoint, workdir: Path, probe: Tensor
) -> tuple[Path, NDArray[np.float32]]:
    """Folder of the merged model, and its logits `[n, length, vocabulary]` of `probe`."""
    adapter = workdir / "adapter"
    bucket.download_folder(checkpoint.adapter_prefix, adapter)
    base = load_base(base_folder, torch.device("cpu"))
    merged = PeftModel.from_pretrained(base, adapter).merge_and_unload().eval()
    folder = workdir / "merged"
    merged.save_pretrained(folder, safe_serialization=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        if (base_folder / name).exists():
            shutil.copy(base_folder / name, folder / name)
    with torch.inference_mode():
        logits: NDArray[np.float32] = merged(input_ids=probe, use_cache=False).logits.float().numpy()
    return folder, logits


def export_base(name: str, cache: Path) -> Path:
    """Folder with the ONNX graph (fp32, logits of all tokens) and tokenizer of a base model, made once: 540 MB, a minute.

    Raises TidemillError when the model is unknown or cannot be exported.
    """
    base = base_model_folder(name, cache)
    folder = cache / f"{base.name}-onnx"
    if not (folder / "model.onnx").exists():
        with tempfile.TemporaryDirectory(prefix="export-", dir=cache) as workdir:
            built = _built(base, Path(workdir))
            with suppress(OSError):  # of two processes that export it at a time, the first one counts
                os.rename(built, folder)
    return folder


def _built(merged_folder: Path, workdir: Path) -> Path:
    """Run the exporter in a process of its own: it changes global state and frees its memory by ending."""
    folder = workdir / "fp32"
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", str(merged_folder), "-o", str(folder)]
    command += ["-p", "fp32", "-e", "cpu", "-c", str(workdir / "builder-cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not (folder / "model.onnx").exists():
        raise TidemillError(
            f"ONNX export in {folder}",
            expected="model.onnx",
            got=(done.stderr.strip().splitlines() or ["no message"])[-1],
            remedy="check free disk and memory, then run the flow again",
        )
    return folder


def _quantized(fp32_folder: Path, workdir: Path) -> Path:
    folder = workdir / "int8"
    shutil.rmtree(folder, ignore_errors=True)
    quantize_8bit(fp32_folder / "model.onnx", folder / "model.onnx")
    for path in fp32_folder.iterdir():
        if not path.name.startswith("model.onnx"):
            shutil.copy(path, folder / path.name)
    return folder


def _held_out_rows(bucket: Bucket, tokenizer: Any, datasets: Sequence[Dataset]) -> Tensor:
    """Test texts of what the model was trained for: int64 `[n, 256]`."""
    texts = chain.from_iterable(read_texts(bucket, dataset.prefix, "test") for dataset in datasets)
    return pack(tokenizer, shuffled(texts), 256, QUANTIZATION_TOKENS)


def _parity(expected: NDArray[np.float32], exported: OnnxModel, rows: NDArray[np.int64]) -> tuple[float, float]:
    """Largest |Δlogit| and share of equal top-1 tokens, over prompts without their last token and then a step for it."""
    prompts, cache = exported.forward(rows[:, :-1])
    step, _ = exported.forward(rows[:, -1:], cache)
    got = np.concatenate([prompts, step], axis=1)
    diff = float(np.abs(expected - got).max())
    return (diff if math.isfinite(diff) else math.inf), float((expected.argmax(-1) == got.argmax(-1)).mean())


def _describe(folder: Path, merged_folder: Path, checkpoint: Checkpoint, variant: str) -> None:
    """Add what a server needs beside the graph: config, tokenizer and `tidemill.json`."""
    config = json.loads((merged_folder / "config.json").read_text())
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (merged_folder / name).exists():
            shutil.copy(merged_folder / name, folder / name)
    eos = config.get("eos_token_id")
    told = {
        "model": checkpoint.model,
        "version": checkpoint.version,
        "variant": variant,
        "checkpoint_id": checkpoint.checkpoint_id,
        "dataset_ids": list(checkpoint.dataset_ids),
        "eos_token_ids": eos if isinstance(eos, list) else [eos],
        "context_length": config["max_position_embeddings"],
    }
    (folder / "tidemill.json").write_text(json.dumps(told, indent=1))
