from __future__ import annotations

import pytest

from lake.errors import RecipeError
from lake.recipe import Perplexity, PrepareRules, parse_recipe


def parsed(perplexity: str) -> Perplexity | None:
    return parse_recipe(f"name: docs\nprepare: {{perplexity: {perplexity}}}", "docs.yaml").prepare.perplexity


def test_nothing_is_scored_unless_the_recipe_says_so() -> None:
    assert PrepareRules().perplexity is None
    assert parsed("{}") == Perplexity()


def test_every_field_says_what_it_is_for() -> None:
    assert [name for name, field in Perplexity.model_fields.items() if not field.description] == []


def test_all_fields_together() -> None:
    found = parsed(
        "{model: 'file:/models/base', share: 0.1, thresholds: [20, 60.5], drop: [tail], max_perplexity: 900,"
        " bootstrap: false, order: 2, training_words: 50000, max_tokens: 256, batch_size: 64, reference_documents: 50}"
    )

    assert found is not None
    assert (found.thresholds, found.drop) == ((20, 60.5), ("tail",))


@pytest.mark.parametrize(
    ("perplexity", "field", "allowed"),
    [
        ("{model: gpt2}", "model", "pattern"),
        ("{model: 'file:'}", "model", "pattern"),
        ("{share: 0}", "share", "greater than 0"),
        ("{share: 1.5}", "share", "less than or equal to 1"),
        ("{thresholds: [60, 20]}", "", "ascending"),
        ("{thresholds: [60]}", "thresholds.1", ""),
        ("{thresholds: [.nan, 20]}", "thresholds.0", "finite"),
        ("{drop: [head]}", "drop.0", "'middle' or 'tail'"),
        ("{max_perplexity: 0}", "max_perplexity", "greater than 0"),
        ("{order: 6}", "order", "less than or equal to 5"),
        ("{training_words: 10}", "training_words", "greater than or equal to 10000"),
        ("{max_tokens: 1}", "max_tokens", "greater than or equal to 2"),
        ("{ordre: 2}", "ordre", "one of model, share"),
    ],
)
def test_a_refusal_names_the_field_and_what_is_allowed(perplexity: str, field: str, allowed: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parsed(perplexity)

    assert caught.value.where.endswith(f"prepare.perplexity.{field}".rstrip("."))
    assert allowed in caught.value.expected
