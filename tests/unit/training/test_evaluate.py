from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lake.bucket import BucketAddress
from lake.recipe import Recipe
from lake.records import Checkpoint, Dataset
from tests.tiny_model import prose
from training.base_model import load_base, load_tokenizer
from training.data import pack
from training.evaluate import Scores, evaluate
from training.finetune import finetune
from training.perplexity import perplexity
from training.task_set import Item, accuracy, choice_scores, fixed_items

CPU = torch.device("cpu")


@pytest.fixture
def measure(recipe: Recipe, address: BucketAddress, tmp_path: Path) -> Callable[..., Scores]:
    def run(checkpoint: Checkpoint, datasets: list[Dataset], **champion: object) -> Scores:
        arguments = {"champion": None, "champion_datasets": [], "recipe": recipe, **champion}
        return evaluate(checkpoint=checkpoint, datasets=datasets, address=address, cache=tmp_path, **arguments)  # type: ignore[arg-type]

    return run


@pytest.fixture
def trained(recipe: Recipe, address: BucketAddress, tmp_path: Path) -> Callable[[str, Dataset], Checkpoint]:
    def run(version: str, dataset: Dataset) -> Checkpoint:
        checkpoint, _ = finetune(
            model="tiny",
            version=version,
            datasets=[dataset],
            replay=[],
            parent=None,
            recipe=recipe,
            address=address,
            cache=tmp_path,
            workdir=tmp_path / version,
            checkpoint_id=version,
            prefix=f"models/tiny/{version}/adapter/",
            progress=lambda _: None,
        )
        return checkpoint

    return run


def test_the_first_version_is_measured_against_the_base_model(
    trained: Callable[..., Checkpoint],
    measure: Callable[..., Scores],
    write_dataset: Callable[..., Dataset],
    tiny_model: Path,
) -> None:
    texts = prose(30)[25:]
    dataset = write_dataset("first", test=texts[:1])  # less than the budget, so that its order does not matter
    scores = measure(trained("v1", dataset), [dataset])
    assert [score.held_out for score in scores.perplexity] == ["new"]
    rows = pack(load_tokenizer(tiny_model), texts[:1], 64)
    score = scores.perplexity[0]
    assert score.base == pytest.approx(perplexity(load_base(tiny_model, CPU), rows, CPU, bf16=False), rel=1e-6)
    assert score.n_tokens == len(rows) * 63
    assert score.champion is None
    assert score.challenger < 0.9 * score.base
    assert scores.task.champion is None
    assert scores.task.base == accuracy(load_base(tiny_model, CPU), load_tokenizer(tiny_model), fixed_items(), CPU)


def test_a_later_version_is_measured_against_the_champion_on_both_held_out_sets(
    trained: Callable[..., Checkpoint],
    measure: Callable[..., Scores],
    write_dataset: Callable[..., Dataset],
    recipe: Recipe,
) -> None:
    old = write_dataset("old", train=["alpha beta gamma delta " * 40] * 9, test=["alpha beta gamma delta " * 40] * 9)
    new = write_dataset("new", train=["one two three four five " * 40] * 9, test=["one two three four five " * 40] * 9)
    champion, challenger = trained("v1", old), trained("v2", new)
    scores = measure(challenger, [new], champion=champion, champion_datasets=[old])
    by_set = {score.held_out: score for score in scores.perplexity}
    assert by_set.keys() == {"new", "champion"}
    # Each is best at what it has been trained on, so the adapters have really been switched.
    assert by_set["new"].challenger < 0.5 * by_set["new"].champion
    assert by_set["champion"].champion < 0.5 * by_set["champion"].challenger
    assert scores.task.champion is not None
    # The recipe's budget of 512 tokens is shared by the two: 4 rows of 64 each.
    assert {score.n_tokens for score in scores.perplexity} == {4 * 63}
    halved = recipe.model_copy(update={"gate": recipe.gate.model_copy(update={"held_out_tokens": 256})})
    alone = measure(champion, [old], recipe=halved)
    assert alone.perplexity[0].challenger == pytest.approx(by_set["champion"].champion, rel=1e-6)
    assert alone.perplexity[0].base == pytest.approx(by_set["champion"].base, rel=1e-6)


def test_perplexity_of_even_predictions_is_the_vocabulary(tiny_model: Path) -> None:
    model = load_base(tiny_model, CPU)
    torch.nn.init.zeros_(model.model.norm.weight)  # so all logits are 0
    rows = pack(load_tokenizer(tiny_model), prose(2), 64)
    assert perplexity(model, rows, CPU, bf16=False) == pytest.approx(1024, rel=1e-5)


def test_perplexity_of_a_lost_model_is_infinite(tiny_model: Path) -> None:
    model = load_base(tiny_model, CPU)
    with torch.no_grad():
        model.model.norm.weight.mul_(1e6)
    assert perplexity(model, pack(load_tokenizer(tiny_model), prose(2), 64), CPU, bf16=False) == math.inf


def test_the_fixed_tasks_have_different_choices_and_an_answer() -> None:
    for item in fixed_items():
        assert len(set(item.choices)) == len(item.choices) >= 2
        assert 0 <= item.answer < len(item.choices)


def test_choices_are_scored_by_mean_log_likelihood(tiny_model: Path) -> None:
    model, tokenizer = load_base(tiny_model, CPU), load_tokenizer(tiny_model)
    items = fixed_items()[:5]
    for item, scores in zip(items, choice_scores(model, tokenizer, items, CPU), strict=True):
        for choice, score in zip(item.choices, scores, strict=True):
            prompt = tokenizer.encode(item.prompt, add_special_tokens=False)
            ending = tokenizer.encode(f" {choice}", add_special_tokens=False)
            with torch.inference_mode():
                told = model(input_ids=torch.tensor([prompt + ending])).logits[0].log_softmax(-1)
            slow = sum(float(told[len(prompt) - 1 + i, token]) for i, token in enumerate(ending)) / len(ending)
            assert score == pytest.approx(slow, rel=1e-4)


def test_accuracy_is_the_share_of_right_choices(tiny_model: Path) -> None:
    model, tokenizer = load_base(tiny_model, CPU), load_tokenizer(tiny_model)
    scores = choice_scores(model, tokenizer, fixed_items(), CPU)
    best = [of.index(max(of)) for of in scores]
    right = [Item(prompt=i.prompt, choices=i.choices, answer=b) for i, b in zip(fixed_items(), best, strict=True)]
    wrong = Item(prompt=right[0].prompt, choices=right[0].choices, answer=(best[0] + 1) % len(right[0].choices))
    assert accuracy(model, tokenizer, right, CPU) == 1
    assert accuracy(model, tokenizer, [wrong, *right[1:4]], CPU) == 0.75
