"""LoRA fine-tuning that survives its own death: checkpoints are complete or absent, and the resumed run is the same."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from lake.bucket import Bucket, BucketAddress
from lake.layout import report_prefix
from lake.recipe import Recipe
from lake.recipe import Training as TrainingRules
from lake.records import Checkpoint, Dataset
from training.base_model import base_model_folder, load_base, load_tokenizer
from training.data import batches, filled, pack_split
from training.device import autocast, has_native_bf16, pick_device, rows_per_pass
from training.loss_curve import loss_curve_png
from training.perplexity import mean_loss


@dataclass(frozen=True)
class TrainProgress:
    """Told after every step. `eta_s` is what is left at the mean pace so far."""

    step: int
    n_steps: int
    loss: float
    tokens_per_s: float
    eta_s: float


@dataclass
class _State:
    """What a checkpoint holds besides the tensors."""

    step: int
    losses: list[float]


def finetune(
    *,
    model: str,
    version: str,
    datasets: Sequence[Dataset],
    replay: Sequence[Dataset],
    parent: Checkpoint | None,
    recipe: Recipe,
    address: BucketAddress,
    cache: Path,
    workdir: Path,
    checkpoint_id: str,
    prefix: str,
    progress: Callable[[TrainProgress], None],
) -> tuple[Checkpoint, Path]:
    """Train an adapter on `datasets`, mixed with `replay`, and upload it to `prefix`, with its loss curve.

    Starts from `parent`'s adapter when the recipe says so and there is one. Resumes from the newest complete
    checkpoint in `workdir`. Returns the checkpoint record and the local adapter folder.
    """
    rules, bucket, started = recipe.training, Bucket(address), time.monotonic()
    device = pick_device()
    folder = base_model_folder(recipe.base_model, cache)
    tokenizer = load_tokenizer(folder)
    bf16 = rules.precision == "bf16" or (rules.precision == "auto" and has_native_bf16(device))
    length = rules.sequence_length
    n_tokens = rules.steps * rules.batch_size * length
    new = filled(pack_split(bucket, tokenizer, datasets, "train", length), length)
    # However long the history is, no more of it is read than could be used.
    old = filled(pack_split(bucket, tokenizer, replay, "train", length, n_tokens), length) if replay else None
    held_out = pack_split(bucket, tokenizer, datasets, "validation", length, rules.validation_tokens)
    torch.manual_seed(rules.seed)
    adapted = _adapted(load_base(folder, device), rules, parent, bucket, workdir)
    state, resumed_from = _train(adapted, rules, new, old, device, bf16, workdir, progress)

    adapter = workdir / "adapter"
    _save_adapter(adapted, adapter)
    bucket.upload_folder(adapter, prefix)
    validation_loss = mean_loss(adapted, held_out, device, bf16)
    loss_curve_key = f"{report_prefix(model, 'training', checkpoint_id)}loss.png"
    bucket.put(loss_curve_key, loss_curve_png(state.losses, validation_loss, f"{model} {version}"), "image/png")
    checkpoint = Checkpoint(
        checkpoint_id=checkpoint_id,
        model=model,
        version=version,
        dataset_ids=tuple(dataset.dataset_id for dataset in datasets),
        parent_version=parent.version if parent else None,
        base_model=recipe.base_model,
        adapter_prefix=prefix,
        n_steps=rules.steps,
        n_tokens=n_tokens,
        train_loss=sum(state.losses[-5:]) / len(state.losses[-5:]),
        validation_loss=validation_loss,
        device=str(device),
        precision="bf16" if bf16 else "fp32",
        duration_s=round(time.monotonic() - started, 2),
        resumed_from_step=resumed_from,
        loss_curve_key=loss_curve_key,
    )
    return checkpoint, adapter


def learning_rate_at(step: int, rules: TrainingRules) -> float:
    """Linear warm-up, then a cosine down to a tenth (Hoffmann et al. 2022, appendix B, decay by 10×)."""
    if step < rules.warmup_steps:
        return rules.learning_rate * (step + 1) / rules.warmup_steps
    done = (step - rules.warmup_steps) / max(1, rules.steps - rules.warmup_steps)
    return rules.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def _adapted(base: Any, rules: TrainingRules, parent: Checkpoint | None, bucket: Bucket, workdir: Path) -> Any:
    config = LoraConfig(r=rules.rank, lora_alpha=rules.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    if parent is None or rules.init == "base":
        return get_peft_model(base, config)
    folder = workdir / "parent"
    bucket.download_folder(parent.adapter_prefix, folder)
    return PeftModel.from_pretrained(base, folder, is_trainable=True)


def _train(
    adapted: Any,
    rules: TrainingRules,
    new: Tensor,
    replay: Tensor | None,
    device: torch.device,
    bf16: bool,
    workdir: Path,
    progress: Callable[[TrainProgress], None],
) -> tuple[_State, int]:
    """Run the steps that are left. Returns the state at the end and the step that it resumed from."""
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rules.learning_rate, weight_decay=0.0)
    state = _restore(workdir, adapted, optimizer, device) or _State(step=0, losses=[])
    resumed_from, started = state.step, time.monotonic()
    mixed: Iterator[Tensor] = batches(
        new, replay, batch_size=rules.batch_size, replay_share=rules.replay_share, seed=rules.seed
    )
    adapted.train()
    for rows in islice(mixed, state.step, rules.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(state.step, rules)
        loss = _backward(adapted, rows, device, bf16)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.losses.append(loss)
        pace_s = (time.monotonic() - started) / (state.step - resumed_from)
        progress(
            TrainProgress(
                step=state.step,
                n_steps=rules.steps,
                loss=state.losses[-1],
                tokens_per_s=rows.numel() / pace_s,
                eta_s=pace_s * (rules.steps - state.step),
            )
        )
        if state.step % rules.checkpoint_every_steps == 0 and state.step < rules.steps:
            _checkpoint(workdir, adapted, optimizer, state)
    adapted.eval()
    return state, resumed_from


def _backward(adapted: Any, rows: Tensor, device: torch.device, bf16: bool) -> float:
    """Add the gradient of the batch's mean loss to the parameters', in as many passes as memory asks for; the loss."""
    total = 0.0
    for part in rows.split(rows_per_pass(device, rows.shape[1], len(rows))):
        tokens = part.to(device)
        with autocast(device, bf16):
            # Every row predicts equally many tokens, so that the mean of means is the mean.
            loss = adapted(input_ids=tokens, labels=tokens, use_cache=False).loss * (len(part) / len(rows))
        loss.backward()
        total += loss.item()
    return total


def _checkpoint(workdir: Path, adapted: Any, optimizer: torch.optim.Optimizer, state: _State) -> None:
    """Write `step-N` under another name and rename: a folder by that name is always complete."""
    partial, final = workdir / f".step-{state.step:06d}", workdir / f"step-{state.step:06d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(_tensors(adapted), partial / "adapter.safetensors")
    moments = {
        f"{index}.{name}": value.contiguous()
        for index, kept in optimizer.state_dict()["state"].items()
        for name, value in kept.items()
    }
    save_file(moments, partial / "optimizer.safetensors")
    (partial / "state.json").write_text(json.dumps({"step": state.step, "losses": state.losses}))
    os.rename(partial, final)
    for older in sorted(workdir.glob("step-*"))[:-2]:
        shutil.rmtree(older, ignore_errors=True)


def _restore(workdir: Path, adapted: Any, optimizer: torch.optim.Optimizer, device: torch.device) -> _State | None:
    for folder in sorted(workdir.glob("step-*"), reverse=True):
        set_peft_model_state_dict(adapted, load_file(folder / "adapter.safetensors", device=str(device)))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in load_file(folder / "optimizer.safetensors", device=str(device)).items():
            index, _, what = name.partition(".")
            # AdamW keeps its step count on the CPU whatever the device.
            moments.setdefault(int(index), {})[what] = value.cpu() if what == "step" else value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        told = json.loads((folder / "state.json").read_text())
        return _State(step=told["step"], losses=told["losses"])
    return None


def _tensors(adapted: Any) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in get_peft_model_state_dict(adapted).items()}


def _save_adapter(adapted: Any, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    adapted.save_pretrained(folder, safe_serialization=True)
    # peft notes the local path of the base model, which says nothing elsewhere.
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = None
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))
