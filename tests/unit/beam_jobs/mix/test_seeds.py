"""Labelled seeds: inline and from files; what is wrong with one is said with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from beam_jobs.mix.files import digests_of
from beam_jobs.mix.seeds import MAX_SEED_CHARACTERS, Seed, seeds_of
from lake.errors import RecipeError
from lake.recipe import Mix


def mix_with(path: Path, **more: Any) -> Mix:
    return Mix.model_validate({"domains": {"sea": {}, "mill": {}}, "seeds": [f"file:{path}"], **more})


def test_examples_and_files_are_one_list(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    rows = [{"text": "the mill", "domain": "mill"}, {"text": "x" * 30_000, "domain": "other", "source": "a book"}]
    path.write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    mix = mix_with(path, domains={"sea": {"examples": ["the tide"]}, "mill": {}})
    assert seeds_of(mix) == [
        Seed("the tide", "sea"),
        Seed("the mill", "mill"),
        Seed("x" * MAX_SEED_CHARACTERS, "other"),
    ]


def test_no_seeds_are_no_error() -> None:
    assert seeds_of(Mix.model_validate({"domains": {"sea": {"sources": ["sea/*"]}}})) == []


@pytest.mark.parametrize(
    ("content", "place", "expected", "got"),
    [
        (b'{"text": "a", "domain": "sea"}\n{"text"', ":2", "a JSON object a line", "line 1 column"),
        (b'["a"]', ":1", '"domain": …', "list without a text"),
        (b'{"text": 3, "domain": "sea"}', ":1", '"domain": …', "dict without a text"),
        (b'{"text": "a", "domain": "lake"}', ":1", "domain sea or mill or other", "'lake'"),
        (b'{"text": "\xff"}', "", "UTF-8", "can't decode"),
        (b"[" * 100_000, ":1", "a JSON object a line", "recursion"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, content: bytes, place: str, expected: str, got: str) -> None:
    path = tmp_path / "seeds.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        seeds_of(mix_with(path))
    assert caught.value.where == f"prepare.mix.seeds, {path}{place}"
    assert expected in caught.value.expected
    assert got in caught.value.got


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for read in (seeds_of, digests_of):
        with pytest.raises(RecipeError, match=r"seeds\.jsonl.*No such file"):
            read(mix_with(tmp_path / "seeds.jsonl"))


def test_seeds_of_one_domain_teach_nothing(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    path.write_text('{"text": "a", "domain": "sea"}\n' * 3)
    with pytest.raises(RecipeError, match=r"at least two of the domains sea, mill, other, got 3 of sea; add"):
        seeds_of(mix_with(path))


def test_the_identity_of_a_mix_changes_with_its_files(tmp_path: Path) -> None:
    seeds, tokenizer = tmp_path / "seeds.jsonl", tmp_path / "tokenizer.json"
    seeds.write_text("1")
    tokenizer.write_text("{}")
    mix = mix_with(seeds, tokenizer=f"file:{tokenizer}")
    before = digests_of(mix)
    assert set(before) == {str(seeds), str(tokenizer)}
    seeds.write_text("2")
    after = digests_of(mix)
    assert before[str(seeds)] != after[str(seeds)]
    assert before[str(tokenizer)] == after[str(tokenizer)]
    assert digests_of(Mix()) == {}
