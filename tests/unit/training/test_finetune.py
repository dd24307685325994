from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lake.bucket import Bucket, BucketAddress
from lake.recipe import Recipe, Training
from lake.records import Checkpoint, Dataset
from tests.tiny_model import prose
from training.base_model import load_base, load_tokenizer
from training.data import pack
from training.finetune import TrainProgress, _backward, finetune, learning_rate_at
from training.perplexity import mean_loss

Finetune = Callable[..., tuple[Checkpoint, Path, list[TrainProgress]]]


class Killed(Exception):
    """Stands for the process's death in the middle of a training."""


@pytest.fixture
def train(recipe: Recipe, address: BucketAddress, write_dataset: Callable[..., Dataset], tmp_path: Path) -> Finetune:
    """Fine-tune in a working folder; `die_at` kills it right after that step."""
    dataset = write_dataset("first")

    def run(workdir: str = "work", die_at: int | None = None, **changes: object) -> object:
        told: list[TrainProgress] = []

        def progress(step: TrainProgress) -> None:
            told.append(step)
            if step.step == die_at:
                raise Killed

        arguments: dict[str, object] = {
            "model": "tiny",
            "version": "v1",
            "datasets": [dataset],
            "replay": [],
            "parent": None,
            "recipe": recipe,
            "checkpoint_id": "c1",
            "prefix": "models/tiny/v1/adapter/",
            **changes,
        }
        checkpoint, adapter = finetune(
            address=address,
            cache=tmp_path / "cache",
            workdir=tmp_path / workdir,
            progress=progress,
            **arguments,  # type: ignore[arg-type]
        )
        return checkpoint, adapter, told

    return run  # type: ignore[return-value]


def _base_loss(recipe: Recipe) -> float:
    """Of the untrained model on the default dataset's validation split."""
    folder, device = Path(recipe.base_model.removeprefix("file:")), torch.device("cpu")
    rows = pack(load_tokenizer(folder), prose(30)[20:25], 64)
    return mean_loss(load_base(folder, device), rows, device, bf16=False)


def test_the_learning_rate_warms_up_and_decays_to_a_tenth() -> None:
    rules = Training(learning_rate=0.01, steps=100, warmup_steps=10)
    rates = [learning_rate_at(step, rules) for step in range(100)]
    assert rates[:10] == pytest.approx([0.001 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(0.01)
    assert rates[55] == pytest.approx(0.0055)  # half of the way down: the mean of 1 and 0.1
    assert rates[99] == pytest.approx(0.001, rel=0.02)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert learning_rate_at(0, Training(learning_rate=0.01, warmup_steps=0)) == pytest.approx(0.01)


def test_training_lowers_the_loss_and_leaves_adapter_and_curve(train: Finetune, bucket: Bucket, recipe: Recipe) -> None:
    checkpoint, adapter, told = train()
    assert [step.step for step in told] == list(range(1, 11))
    assert checkpoint.validation_loss < _base_loss(recipe) - 0.15
    assert told[-1].eta_s == 0
    assert all(step.tokens_per_s > 0 for step in told)
    assert checkpoint.train_loss == pytest.approx(sum(step.loss for step in told[5:]) / 5)
    assert checkpoint.n_tokens == 10 * 4 * 64
    assert checkpoint.resumed_from_step == 0
    assert checkpoint.parent_version is None
    assert bucket.get(checkpoint.loss_curve_key).startswith(b"\x89PNG")
    stored = {ref.key for ref in bucket.list(checkpoint.adapter_prefix)}
    assert stored == {f"models/tiny/v1/adapter/{path.name}" for path in adapter.iterdir()}
    assert (
        bucket.get(f"{checkpoint.adapter_prefix}adapter_model.safetensors")
        == (adapter / "adapter_model.safetensors").read_bytes()
    )
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] is None


def test_a_killed_training_resumes_to_the_same_result(train: Finetune) -> None:
    whole, whole_adapter, told = train("whole")
    with pytest.raises(Killed):
        train("killed", die_at=9)
    resumed, resumed_adapter, told_again = train("killed")
    assert resumed.resumed_from_step == 8
    assert [step.step for step in told_again] == [9, 10]
    assert [step.loss for step in told_again] == pytest.approx([step.loss for step in told[8:]], abs=1e-6)
    assert resumed.train_loss == pytest.approx(whole.train_loss, abs=1e-6)
    assert resumed.validation_loss == pytest.approx(whole.validation_loss, abs=1e-6)
    first, second = (load_file(a / "adapter_model.safetensors") for a in (whole_adapter, resumed_adapter))
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[name], second[name], atol=1e-7) for name in first)


def test_a_half_written_checkpoint_is_ignored(train: Finetune, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(die_at=6)
    half = tmp_path / "work" / ".step-000008"  # as a process leaves it that dies while it writes
    half.mkdir()
    (half / "adapter.safetensors").write_bytes(b"half of the")
    checkpoint, _, told = train()
    assert checkpoint.resumed_from_step == 4
    assert [step.step for step in told] == [5, 6, 7, 8, 9, 10]


def test_only_the_last_checkpoints_are_kept(train: Finetune, recipe: Recipe, tmp_path: Path) -> None:
    every = recipe.model_copy(update={"training": recipe.training.model_copy(update={"checkpoint_every_steps": 1})})
    train(recipe=every)
    assert sorted(path.name for path in (tmp_path / "work").glob("step-*")) == ["step-000008", "step-000009"]


def test_a_later_version_starts_from_its_parent(
    train: Finetune, recipe: Recipe, write_dataset: Callable[..., Dataset]
) -> None:
    parent, _, _ = train()
    more = {"version": "v2", "datasets": [write_dataset("second", seed=1)], "replay": [], "checkpoint_id": "c2"}
    child, _, from_parent = train("child", parent=parent, **more)
    rules = recipe.training.model_copy(update={"init": "base"})
    _, _, from_base = train(
        "other", parent=parent, **(more | {"recipe": recipe.model_copy(update={"training": rules})})
    )
    assert child.parent_version == "v1"
    assert from_parent[0].loss < from_base[0].loss - 0.1  # of the same batch


def test_replayed_sequences_are_mixed_in(train: Finetune, write_dataset: Callable[..., Dataset]) -> None:
    _, _, without = train("without")
    _, _, mixed = train("mixed", replay=[write_dataset("old", seed=2)])
    assert [step.loss for step in mixed] != [step.loss for step in without]


def test_several_passes_give_the_gradient_of_the_whole_batch(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    rows = pack(load_tokenizer(tiny_model), prose(4), 64)[:4]
    gradients, losses = [], []
    for pass_tokens in (64, 1024):
        monkeypatch.setattr("training.device._CPU_PASS_TOKENS", pass_tokens)
        model = load_base(tiny_model, device)
        losses.append(_backward(model, rows, device, bf16=False))
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-7)


def test_bf16_trains_as_well(train: Finetune, recipe: Recipe) -> None:
    rules = recipe.training.model_copy(update={"precision": "bf16"})
    checkpoint, adapter, _ = train(recipe=recipe.model_copy(update={"training": rules}))
    assert checkpoint.precision == "bf16"
    assert checkpoint.validation_loss < _base_loss(recipe) - 0.15
    assert all(weight.dtype == torch.float32 for weight in load_file(adapter / "adapter_model.safetensors").values())
