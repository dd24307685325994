"""The mix of a recipe: what it says by default, and refusals that teach."""

from __future__ import annotations

import pytest

from lake.errors import RecipeError
from lake.recipe import Mix, parse_recipe


def mix_of(section: str) -> Mix:
    found = parse_recipe(f"name: docs\nprepare: {{mix: {{{section}}}}}", "docs.yaml").prepare.mix
    assert found is not None
    return found


def test_it_is_off_by_default() -> None:
    assert parse_recipe("name: docs", "docs.yaml").prepare.mix is None


def test_domains_quotas_and_keywords_of_both_kinds() -> None:
    mix = mix_of(
        "domains: {technology: {keywords: [compiler, 1984]}, humanities: {keywords: {poem: 2, rhyme-scheme: 1.5}},"
        " life: {sources: [biology/*]}}, quotas: {technology: 0.30, humanities: 0.25, life: 0.20}"
    )
    assert mix.labels == ("technology", "humanities", "life", "other")
    assert mix.domains["technology"].keywords == {"compiler": 1, "1984": 1}
    assert mix.domains["humanities"].keywords == {"poem": 2, "rhyme-scheme": 1.5}


def test_every_field_says_what_it_is() -> None:
    domain = Mix.model_json_schema()["$defs"]["Domain"]
    for fields in (Mix.model_fields, domain["properties"]):
        for name, field in fields.items():
            description = field["description"] if isinstance(field, dict) else field.description
            assert description, name


@pytest.mark.parametrize(
    ("section", "field", "expected"),
    [
        ("domains: {a: {}}", "", "sources, keywords or examples for domain a, or seeds of the whole mix"),
        ("domains: {a: {examples: [x]}}", "", "examples of a second domain beside those of a"),
        ("domains: {a: {examples: [' ']}}", "domains.a.examples", "not blank"),
        ("domains: {a: {sources: ['']}}", "domains.a.sources", "not blank"),
        ("domains: {a: {keywords: [c++]}}", "domains.a.keywords", "'c++' has other characters"),
        ("domains: {a: {keywords: ['-']}}", "domains.a.keywords", "'-' has other characters"),
        ("domains: {a: {keywords: {x: 0}}}", "domains.a.keywords", "a weight other than 0 for 'x'"),
        ("domains: {a: {keywords: {x: .nan}}}", "domains.a.keywords", "a weight other than 0 for 'x'"),
        ("domains: {a: {keywords: x}}", "domains.a.keywords", "a list of keywords, or a mapping"),
        ("domains: {A b: {sources: [x]}}", "domains", "names of small letters"),
        ("domains: {other: {sources: [x]}}", "domains", "no sources or keywords for other"),
        ("domains: {a: {sources: [x]}}, quotas: {b: 0.1}", "", "quotas of a, other, not of b"),
        ("domains: {a: {sources: [x]}}, quotas: {a: 0.7, other: 0.4}", "", "sum to at most 1, not 1.1"),
        ("domains: {a: {sources: [x]}}, quotas: {a: 0.7, other: 0.1}", "", "sum to 1, not 0.8, as every domain"),
        ("domains: {a: {sources: [x]}}, quotas: {a: 1.2}", "quotas.a", "less than or equal to 1"),
        ("domains: {a: {sources: [x]}}, quotas: {a: 0.2}, min_kept: 1", "", "max_tokens, as min_kept of 1 keeps"),
        ("min_kept: 0", "min_kept", "greater than 0"),
        ("max_tokens: 0", "max_tokens", "greater than or equal to 1"),
        ("value: best", "value", "'tfidf', 'random' or 'arrival'"),
        ("tokenizer: gpt2", "tokenizer", "words|file:"),
        ("seeds: [seeds.jsonl]", "seeds.0", "file:"),
    ],
)
def test_refusals_teach(section: str, field: str, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        mix_of(section)
    assert caught.value.where == f"docs.yaml, field prepare.mix{'.' if field else ''}{field}"
    assert expected in caught.value.expected
