"""The tiny model as the export stage would leave it: an ONNX graph with KV cache, its tokenizer, `tidemill.json`."""

from __future__ import annotations

import io
import json
import runpy
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from safetensors.torch import load_file, save_file

from lake.records import ExportedModel
from tests.tiny_model import CONTEXT_LENGTH, write_tiny_model

MODEL, VERSION = "tiny", "v1"
ONNX_PREFIX = f"models/{MODEL}/{VERSION}/onnx/"


def write_tiny_export(folder: Path) -> Path:
    """Export the tiny model in fp32 into `folder`/onnx and return that.

    With the exporter's own command line, but in this process, which has torch imported already: 2 s and not 20.
    In fp32 a token chosen with a cache is the one chosen without; 8-bit activations would round the two differently.
    """
    source, target = write_tiny_model(folder / "model", initializer_range=0.02), folder / "onnx"
    _make_talkative(source / "model.safetensors")
    arguments = [
        "builder",
        "-m",
        str(source),
        "-o",
        str(target),
        "-p",
        "fp32",
        "-e",
        "cpu",
        "-c",
        str(folder / "cache"),
    ]
    with mock.patch.object(sys, "argv", arguments), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(source / name, target / name)
    eos = json.loads((source / "config.json").read_text())["eos_token_id"]
    told = {
        "model": MODEL,
        "version": VERSION,
        "variant": "fp32",
        "checkpoint_id": "checkpoint",
        "dataset_ids": ["dataset"],
        "eos_token_ids": [eos],
        "context_length": CONTEXT_LENGTH,
    }
    (target / "tidemill.json").write_text(json.dumps(told))
    return target


def _make_talkative(weights: Path) -> None:
    """Enlarge the layers' weights. As they are made, the embedding outweighs them: the model repeats the last token
    whatever came before, and a server that mixed up its cache would not show."""
    tensors = load_file(weights)
    enlarged = {
        name: tensor * 8 if ".layers." in name and tensor.ndim == 2 else tensor for name, tensor in tensors.items()
    }
    save_file(enlarged, weights, metadata={"format": "pt"})


def exported_model(folder: Path) -> ExportedModel:
    """The record that goes with `write_tiny_export`, once its files are in the bucket below ONNX_PREFIX."""
    return ExportedModel(
        export_id="export",
        model=MODEL,
        version=VERSION,
        variant="fp32",
        onnx_prefix=ONNX_PREFIX,
        size_bytes=sum(path.stat().st_size for path in folder.iterdir()),
        parity_max_logit_diff=0.0,
        parity_top1=1.0,
        perplexity_fp32=1.0,
        perplexity_variant=1.0,
        quantization_loss=0.0,
    )
