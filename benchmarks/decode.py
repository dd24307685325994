"""Decoding on processors: the served 8-bit graph against torch eager in fp32, and eight clients against one.

The model is the real SmolLM2-135M-Instruct as it ships, untrained by us; export, quantization and what packaging
changes are the product's own. Sides run in processes of their own and in turn, and the best of each side's rounds
counts: a round that something else on this machine slowed down says nothing about either.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from tokenizers import Tokenizer

from benchmarks.report import Figure, at_least, at_most, told
from bentos.decoder import GRAPH
from bentos.serving_graph import WEIGHTS, fit_for_serving
from training.base_model import SHIPPED, base_model_folder
from training.export import quantize_8bit
from training.onnx_model import OnnxModel

ROOT = Path(__file__).parent.parent
ROUNDS = 3
MIN_SPEEDUP, MAX_LOSS, MIN_SCALING = 7.0, 0.015, 4.0
_N_ROWS, _ROW_TOKENS = 16, 256


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        folder = Path(name)
        base = base_model_folder(SHIPPED, folder / "base")
        fp32, served = _exported(base, folder), folder / "served"
        rows = _rows(base)
        perplexity = {variant: OnnxModel(folder / variant / GRAPH).perplexity(rows) for variant in ("fp32", "int8")}
        _serve_from(folder / "int8", served)
        shutil.rmtree(fp32)
        sides = {"torch": base, "onnx": served, "onnx-spin": served, "clients": served}
        rounds = [{side: _measured(side, sides[side]) for side in sides} for _ in range(ROUNDS)]
    return _figures(rounds, perplexity["int8"] / perplexity["fp32"] - 1, perplexity)


def _figures(rounds: list[dict[str, dict[str, float]]], loss: float, perplexity: dict[str, float]) -> list[Figure]:
    def best(side: str, name: str) -> float:
        return max(measured[side][name] for measured in rounds)

    eager, onnx, spin = best("torch", "tokens_per_s"), best("onnx", "batch_1"), best("onnx-spin", "batch_1")
    one, eight = best("clients", "one"), best("clients", "eight")
    how = f"greedy, batch 1, after {ROUNDS} rounds in turn"
    text = f"{_N_ROWS * (_ROW_TOKENS - 1)} tokens of Python's own documentation"
    return [
        at_least("8-bit over torch eager fp32", spin / eager, MIN_SPEEDUP, "×", f"{how}; threads spin as torch's do"),
        at_least("8-bit over torch eager fp32, as served", onnx / eager, MIN_SPEEDUP, "×", f"{how}; threads sleep"),
        at_most("8-bit perplexity loss", loss, MAX_LOSS, "", f"over fp32 ONNX on {text}"),
        at_least("8 clients over 1", eight / one, MIN_SCALING, "×", "through the engine, prompts included"),
        told("8 rows over 1", best("onnx", "batch_8") / onnx, "×", "steps of the decoder alone"),
        told("torch eager fp32", eager, "tok/s", how),
        told("8-bit", spin, "tok/s", f"{how}; threads spin"),
        told("8-bit, as served", onnx, "tok/s", f"{how}; threads sleep while they wait"),
        told("1 client", one, "tok/s", "through the engine, prompts included"),
        told("8 clients", eight, "tok/s", "through the engine, prompts included"),
        told("fp32 perplexity", perplexity["fp32"], "", text),
        told("8-bit perplexity", perplexity["int8"], "", text),
    ]


def _exported(base: Path, folder: Path) -> Path:
    """fp32 by the exporter's command line, 8 bits by the product's own quantization."""
    target = folder / "fp32"
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", str(base), "-o", str(target)]
    command += ["-p", "fp32", "-e", "cpu", "-c", str(folder / "builder-cache")]
    subprocess.run(command, check=True, capture_output=True)
    quantize_8bit(target / GRAPH, folder / "int8" / GRAPH)
    for name in ("genai_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(target / name, folder / "int8" / name)
    config = json.loads((base / "config.json").read_text())
    facts = {
        "model": SHIPPED,
        "version": "v0",
        "variant": "int8",
        "checkpoint_id": "none",
        "dataset_ids": [],
        "eos_token_ids": [config["eos_token_id"]],
        "context_length": config["max_position_embeddings"],
    }
    (folder / "int8" / "tidemill.json").write_text(json.dumps(facts))
    return target


def _serve_from(exported: Path, served: Path) -> None:
    fit_for_serving(exported, served)
    for path in exported.iterdir():
        if path.name not in (GRAPH, WEIGHTS):
            shutil.copyfile(path, served / path.name)


def _rows(base: Path) -> np.ndarray:
    """Real text, int64 `[16, 256]`: topics of Python's language reference, in alphabetical order."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    ids = Tokenizer.from_file(str(base / "tokenizer.json")).encode(text[: 10 * _N_ROWS * _ROW_TOKENS]).ids
    return np.array(ids[: _N_ROWS * _ROW_TOKENS], dtype=np.int64).reshape(_N_ROWS, _ROW_TOKENS)


def _measured(side: str, folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._decode_side", side, str(folder)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured
