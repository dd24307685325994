"""The exporter runs once, for a recipe whose 8-bit rule nothing can meet; the other cases start from what it left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from lake.bucket import Bucket, BucketAddress
from lake.errors import TidemillError
from lake.recipe import Export, Recipe
from lake.records import Checkpoint, Dataset, ExportedModel
from tests.s3 import address_of
from tests.tiny_model import CONTEXT_LENGTH, prose
from training.base_model import load_base, load_tokenizer
from training.data import pack
from training.export import best_variant, export
from training.finetune import _adapted, _save_adapter
from training.onnx_model import OnnxModel

CPU = torch.device("cpu")
DATASET = Dataset(
    dataset_id="d1",
    model="tiny",
    drop_id="drop-of-d1",
    prefix="datasets/tiny/d1/",
    history_ids=(),
    n_objects=1,
    n_read=20,
    n_kept=20,
    rejected={},
    redacted={},
    n_documents={"test": 20},
    n_characters={"test": 1},
)
NOTHING_PASSES = Export().model_copy(update={"max_quantization_loss": -1.0})


@pytest.fixture(scope="module")
def store(nanio_url: str) -> Iterator[BucketAddress]:
    address = address_of(nanio_url, "exports")
    Bucket(address).ensure(create=True)
    yield address


@pytest.fixture(scope="module")
def checkpoint(store: BucketAddress, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """An adapter whose every weight differs from what an untrained one has."""
    bucket, folder = Bucket(store), tmp_path_factory.mktemp("adapter")
    rules = Recipe(name="tiny").training.model_copy(update={"rank": 4, "alpha": 8})
    torch.manual_seed(1)
    adapted = _adapted(load_base(tiny_model, CPU), rules, None, bucket, folder)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    _save_adapter(adapted, folder / "adapter")
    bucket.upload_folder(folder / "adapter", "models/tiny/v1/adapter/")
    bucket.put_table("datasets/tiny/d1/shards/test-00000.parquet", pa.table({"text": prose(20)}))
    return Checkpoint(
        checkpoint_id="c1",
        model="tiny",
        version="v1",
        dataset_ids=("d1",),
        parent_version=None,
        base_model=f"file:{tiny_model}",
        adapter_prefix="models/tiny/v1/adapter/",
        n_steps=1,
        n_tokens=1,
        train_loss=1.0,
        validation_loss=1.0,
        device="cpu",
        precision="fp32",
        duration_s=1.0,
        resumed_from_step=0,
        loss_curve_key="reports/none.png",
    )


@pytest.fixture(scope="module")
def exported(
    store: BucketAddress, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ExportedModel, Path]:
    """The record, and the uploaded files downloaded again."""
    workdir = tmp_path_factory.mktemp("export")
    recipe = Recipe(name="tiny", base_model=checkpoint.base_model, export=NOTHING_PASSES)
    record = export(
        checkpoint=checkpoint,
        datasets=[DATASET],
        recipe=recipe,
        address=store,
        cache=workdir,
        workdir=workdir,
        export_id="e1",
        prefix="models/tiny/v1/onnx/",
    )
    assert {path.name for path in workdir.iterdir()} <= {"adapter", "builder-cache"}  # the large ones are gone
    folder = tmp_path_factory.mktemp("uploaded")
    Bucket(store).download_folder(record.onnx_prefix, folder)
    return record, folder


def test_fp32_goes_on_when_8_bits_lose_too_much(exported: tuple[ExportedModel, Path]) -> None:
    record, folder = exported
    assert record.variant == "fp32"
    assert record.quantization_loss == 0
    assert record.perplexity_variant == record.perplexity_fp32
    assert record.size_bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_the_export_agrees_with_torch(
    exported: tuple[ExportedModel, Path], checkpoint: Checkpoint, tiny_model: Path, store: BucketAddress
) -> None:
    record, folder = exported
    assert record.parity_max_logit_diff < 1e-3
    assert record.parity_top1 == 1
    rows = pack(load_tokenizer(tiny_model), prose(3, seed=5), 48)
    logits, _ = OnnxModel(folder / "model.onnx").forward(rows.numpy())
    with torch.inference_mode():
        base = load_base(tiny_model, CPU)(input_ids=rows).logits.numpy()
    assert np.abs(logits - base).max() > 0.1  # the adapter is in it


def test_what_a_server_needs_lies_beside_the_graph(exported: tuple[ExportedModel, Path], tiny_model: Path) -> None:
    _, folder = exported
    told = json.loads((folder / "tidemill.json").read_text())
    assert told == {
        "model": "tiny",
        "version": "v1",
        "variant": "fp32",
        "checkpoint_id": "c1",
        "dataset_ids": ["d1"],
        "eos_token_ids": [load_tokenizer(tiny_model).eos_token_id],
        "context_length": CONTEXT_LENGTH,
    }
    again = load_tokenizer(folder)
    assert again.encode("naïve café — 1 2 3") == load_tokenizer(tiny_model).encode("naïve café — 1 2 3")
    assert again.chat_template == load_tokenizer(tiny_model).chat_template


def test_a_cache_changes_nothing(exported: tuple[ExportedModel, Path], tiny_model: Path) -> None:
    model = OnnxModel(exported[1] / "model.onnx")
    tokens = pack(load_tokenizer(tiny_model), prose(3), 32)[:1].numpy()
    whole, _ = model.forward(tokens)
    first, cache = model.forward(tokens[:, :20])
    rest, _ = model.forward(tokens[:, 20:], cache)
    assert np.abs(np.concatenate([first, rest], axis=1) - whole).max() < 1e-4


def test_its_perplexity_is_the_mean_likelihood_of_the_next_token(
    exported: tuple[ExportedModel, Path], tiny_model: Path
) -> None:
    model = OnnxModel(exported[1] / "model.onnx")
    rows = pack(load_tokenizer(tiny_model), prose(3), 32)[:5].numpy()
    logits = torch.from_numpy(model.forward(rows)[0][:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(rows[:, 1:]).flatten())
    assert model.perplexity(rows) == pytest.approx(float(loss.exp()), rel=1e-5)


@pytest.fixture
def rows(tiny_model: Path) -> np.ndarray:
    return pack(load_tokenizer(tiny_model), prose(6, seed=3), 64).numpy()


def test_8_bits_go_on_when_they_lose_little(
    exported: tuple[ExportedModel, Path], rows: np.ndarray, tmp_path: Path
) -> None:
    _, folder = exported
    best = best_variant(folder, rows, Export(), tmp_path)
    assert best.variant == "int8"
    loss = best.perplexity / best.perplexity_fp32 - 1
    assert loss != 0
    assert abs(loss) <= 0.015
    assert OnnxModel(best.folder / "model.onnx").perplexity(rows) == pytest.approx(best.perplexity)
    weights = {
        name: sum(p.stat().st_size for p in f.glob("model.onnx*"))
        for name, f in (("fp32", folder), ("int8", best.folder))
    }
    assert weights["int8"] < 0.8 * weights["fp32"]  # the embedding, nearly half of them, stays


def test_without_quantization_nothing_is_quantized(
    exported: tuple[ExportedModel, Path], rows: np.ndarray, tmp_path: Path
) -> None:
    best = best_variant(exported[1], rows, Export(quantization="none"), tmp_path)
    assert best.variant == "fp32"
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_differs_from_torch_is_refused(
    store: BucketAddress,
    checkpoint: Checkpoint,
    tmp_path: Path,
    exported: tuple[ExportedModel, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The exporter's part is played by the earlier export, the model by another one: the base without the adapter.
    monkeypatch.setattr("training.export._built", lambda *_: exported[1])
    bucket = Bucket(store)
    for ref in list(bucket.list(checkpoint.adapter_prefix)):
        bucket.put(ref.key.replace("/v1/", "/v2/"), bucket.get(ref.key))
    wrong = tmp_path / "wrong"
    bucket.download_folder("models/tiny/v2/adapter/", wrong)
    tensors = {name: tensor * 0 for name, tensor in load_file(wrong / "adapter_model.safetensors").items()}
    save_file(tensors, wrong / "adapter_model.safetensors", metadata={"format": "pt"})
    bucket.upload_folder(wrong, "models/tiny/v2/adapter/")
    other = checkpoint.model_copy(update={"version": "v2", "adapter_prefix": "models/tiny/v2/adapter/"})
    with pytest.raises(TidemillError, match=r"export of tiny v2: expected logits within 0.01 of torch"):
        export(
            checkpoint=other,
            datasets=[DATASET],
            recipe=Recipe(name="tiny", base_model=checkpoint.base_model),
            address=store,
            cache=tmp_path,
            workdir=tmp_path / "work",
            export_id="e2",
            prefix="models/tiny/v2/onnx/",
        )
    assert list(bucket.list("models/tiny/v2/onnx/")) == []
