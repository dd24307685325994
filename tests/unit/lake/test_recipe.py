"""Recipes: what is refused, and that the message names field, value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lake.errors import RecipeError
from lake.recipe import Recipe, parse_recipe

ROOT = Path(__file__).parents[3]


def refusal(text: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "s3://tidemill/recipes/docs.yaml")
    return caught.value


def test_defaults_fill_in_what_is_not_said() -> None:
    assert parse_recipe("name: docs", "docs.yaml") == Recipe(name="docs")


RECIPES = [path for path in sorted(ROOT.glob("examples/*.yaml")) if not path.name.startswith("experiment-")]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_example_parses(path: Path) -> None:
    assert parse_recipe(path.read_text(), path.name).name == path.stem


@pytest.mark.parametrize(
    ("text", "field", "got", "allowed"),
    [
        ("name: Docs!", "name", "'Docs!'", "pattern"),
        ("task: generate", "name", "'generate'", "a value for name"),
        ("name: docs\nexport: {quantization: int4}", "export.quantization", "'int4'", "'int8' or 'none'"),
        ("name: docs\ntraining: {rank: 0}", "training.rank", "0", "greater than or equal to 1"),
        ("name: docs\ntraining: {ranks: 8}", "training.ranks", "8", "one of method, rank, alpha"),
        ("name: docs\nbase_model: gpt2", "base_model", "'gpt2'", "smollm2-135m-instruct"),
        ("name: docs\nprepare: {min_jaccard: 80}", "prepare.min_jaccard", "80", "less than or equal to 1"),
        ("name: docs\nprepare: {redact: [names]}", "prepare.redact.0", "'names'", "'ip' or 'phone'"),
        (
            "name: docs\nprepare: {mix: {domains: {a: {keyword: [x]}}}}",
            "prepare.mix.domains.a.keyword",
            "['x']",
            "one of sources, keywords",
        ),
        ("name: docs\nprepare: {languages: [english]}", "prepare.languages", "['english']", "such as en, de"),
        ("name: docs\nprepare: {validation_share: 0.5, test_share: 0.5}", "prepare", "0.5", "below 1 together"),
        ("name: docs\nprepare: {max_characters: 100}", "prepare", "100", "min_characters of at most"),
        (
            "name: docs\nrollout: {steps: [{stage: ab, share: 0.5, n: 3}]}",
            "rollout.steps.0.n",
            "3",
            "one of stage, share",
        ),
        (
            "name: docs\nrollout: {steps: [{stage: ab, share: 0.5}, {stage: shadow, share: 1}]}",
            "rollout",
            "'shadow'",
            "order shadow, ab, canary",
        ),
        (
            "name: docs\nrollout: {steps: [{stage: canary, share: 0.5}, {stage: canary, share: 0.2}]}",
            "rollout",
            "0.2",
            "shares that grow",
        ),
        ("- docs", "(whole file)", "['docs']", "dictionary"),
        ("", "(whole file)", "None", "dictionary"),
    ],
)
def test_a_refusal_names_field_value_and_what_is_allowed(text: str, field: str, got: str, allowed: str) -> None:
    error = refusal(text)
    assert error.where == f"s3://tidemill/recipes/docs.yaml, field {field}"
    assert got in error.got
    assert allowed in error.expected
    assert "put it into the bucket again" in error.remedy


def test_every_wrong_field_is_named_at_once() -> None:
    error = refusal("name: docs\ntraining: {rank: 0, steps: many}")
    assert "training.rank; training.steps" in error.where


@pytest.mark.parametrize("text", ["name: [", "name: docs\nname: {", "at: 2024-99-99", "x: " + "[" * 1_000])
def test_what_is_not_yaml_is_refused(text: str) -> None:
    assert refusal(text).expected == "YAML"


def test_a_few_lines_that_unfold_without_end_are_refused() -> None:
    lines = ["name: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"x{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert len(str(refusal("\n".join(lines)))) < 20_000
