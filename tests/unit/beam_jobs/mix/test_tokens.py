"""Token counts: words and marks, or what a tokenizer file makes of a text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from beam_jobs.mix.tokens import count_tokens
from lake.errors import RecipeError
from lake.recipe import Mix


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that cuts at spaces, puts special tokens around, and would cut off and pad."""
    tokenizer = Tokenizer(models.WordLevel({"[U]": 0, "[S]": 1, "tide": 2}, unk_token="[U]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="[S] $A [S]", special_tokens=[("[S]", 1)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_words_and_marks_are_tokens() -> None:
    found = count_tokens(["The café's 2nd, a_b!?", "", " \n"], Mix())
    assert found.tolist() == [9, 0, 0]
    assert count_tokens([], Mix()).tolist() == []


@given(st.text(), st.text())
def test_tokens_of_two_texts_add_up(first: str, second: str) -> None:
    one, other, both = count_tokens([first, second, f"{first} {second}"], Mix())
    assert one + other == both


def test_a_tokenizer_counts_whole_texts_without_what_it_puts_around(tokenizer_file: Path) -> None:
    mix = Mix(tokenizer=f"file:{tokenizer_file}")
    texts = ["tide and mill", "", *(" ".join(["tide"] * n) for n in range(600))]
    assert count_tokens(texts, mix).tolist() == [3, 0, *range(600)]
    assert count_tokens([], mix).tolist() == []


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"model": {"type": "none"}}', b"\xff\xfe"])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        count_tokens(["a"], Mix(tokenizer=f"file:{path}"))
    assert str(path) in caught.value.where
    assert "count words" in caught.value.remedy
