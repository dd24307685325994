"""The recipe's published rules and privacy: switched on by `true` or by a section, told by name when they are wrong."""

from __future__ import annotations

import pytest

from lake.errors import RecipeError
from lake.recipe import Recipe, parse_recipe
from lake.recipe.privacy import Names
from lake.recipe.quality import C4, FineWeb, Gopher
from lake.redact import KINDS


def recipe(section: str) -> Recipe:
    return parse_recipe(f"name: a\nprepare:\n  {section}\n", "a.yaml")


def test_everything_is_off_by_default() -> None:
    prepare = recipe("min_characters: 10").prepare
    assert set(prepare.quality.model_dump().values()) == {None}
    assert prepare.privacy.names is None
    assert set(prepare.redact) == set(KINDS) - {"ip"}


def test_true_means_the_published_constants() -> None:
    quality = recipe("quality: {gopher: true, fineweb: false, c4: {min_num_sentences: 3}}").prepare.quality
    assert quality.gopher == Gopher()
    assert quality.fineweb is None
    assert quality.c4 == C4(min_num_sentences=3)
    assert recipe("privacy: {names: true}").prepare.privacy.names == Names()
    assert FineWeb().line_punct_thr == 0.12


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("quality: {gopher: {min_words: 3}}", "min_doc_words"),
        ("quality: {gopher: {min_alpha_words_ratio: 3}}", "less than or equal to 1"),
        ("quality: {gopher_repetition: {dup_n_grams: [[3, 0.1]]}}", "greater than or equal to 5"),
        ("quality: {toxicity: {max_count: 3}}", "words or a file of them"),
        ("quality: {toxicity: {file: words.txt}}", "file:/"),
        ("privacy: {names: {kinds: []}}", "at least 1 item"),
        ("redact: [shoe_size]", "'national_id'"),
    ],
)
def test_what_is_wrong_is_told_with_what_is_allowed(section: str, told: str) -> None:
    with pytest.raises(RecipeError) as raised:
        recipe(section)
    assert told in str(raised.value)
