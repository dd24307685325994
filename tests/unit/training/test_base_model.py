from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import pytest
import torch

from lake.errors import TidemillError
from training import base_model
from training.base_model import base_model_folder, load_base, load_tokenizer


def test_a_folder_of_the_users_is_taken_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    assert base_model_folder(f"file:{tiny_model}", tmp_path / "cache") == tiny_model
    assert not (tmp_path / "cache").exists()


def test_pickled_weights_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "pickled")
    model = load_base(folder, torch.device("cpu"))
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(TidemillError, match=r"expected config.json, \*.safetensors .*got .*pytorch_model.bin"):
        base_model_folder(f"file:{folder}", tmp_path)
    with pytest.raises(OSError, match="safetensors"):  # nor is it loaded by anyone who did not ask for the folder
        load_base(folder, torch.device("cpu"))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TidemillError, match="got nothing; save the model with save_pretrained"):
        base_model_folder(f"file:{tmp_path / 'none'}", tmp_path)


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TidemillError, match="expected 'smollm2-135m-instruct' or file:/path, got 'gpt-5'"):
        base_model_folder("gpt-5", tmp_path)


def _gguf_llama(path: Path) -> dict[str, torch.Tensor]:
    """Write a one-layer Llama as GGUF, fp32, with a vocabulary of bytes; its tensors by name."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "token_embd": (256, 32),
        "blk.0.attn_q": (32, 32),
        "blk.0.attn_k": (16, 32),
        "blk.0.attn_v": (16, 32),
        "blk.0.attn_output": (32, 32),
        "blk.0.ffn_gate": (64, 32),
        "blk.0.ffn_up": (64, 32),
        "blk.0.ffn_down": (32, 64),
        "blk.0.attn_norm": (32,),
        "blk.0.ffn_norm": (32,),
        "output_norm": (32,),
    }
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("one-layer")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(256)
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 323))]
    letters.append(letters[0] + letters[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(letters)
    writer.add_token_types([1] * 256)
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A small GGUF file in the place of the shipped one, which takes 10 s to convert."""
    (tmp_path / "package").mkdir()
    tensors = _gguf_llama(tmp_path / "package" / "model.gguf")
    monkeypatch.setattr(base_model, "_shipped_gguf", lambda: tmp_path / "package" / "model.gguf")
    return tensors


def test_the_shipped_model_is_converted_once(shipped: dict[str, torch.Tensor], tmp_path: Path) -> None:
    reader = gguf.GGUFReader
    folder = base_model_folder("smollm2-135m-instruct", tmp_path / "cache")
    model = load_base(folder, torch.device("cpu"))
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, shipped["blk.0.ffn_up"])
    assert torch.equal(model.model.embed_tokens.weight, shipped["token_embd"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert load_tokenizer(folder).eos_token_id == 2
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["smollm2-135m-instruct"]  # nothing half-made
    assert gguf.GGUFReader is reader
    made_at = (folder / "model.safetensors").stat().st_mtime_ns
    assert base_model_folder("smollm2-135m-instruct", tmp_path / "cache") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made_at


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "damaged.gguf").write_bytes(b"not a GGUF file".ljust(64))
    monkeypatch.setattr(base_model, "_shipped_gguf", lambda: tmp_path / "damaged.gguf")
    with pytest.raises(ValueError, match="GGUF"):
        base_model_folder("smollm2-135m-instruct", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_package_brings_its_weights() -> None:
    assert base_model._shipped_gguf().stat().st_size > 50_000_000
