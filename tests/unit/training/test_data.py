from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from lake.bucket import Bucket
from lake.errors import TidemillError
from lake.records import Dataset
from tests.tiny_model import prose
from training.base_model import load_tokenizer
from training.data import batches, filled, pack, pack_split


def test_documents_follow_each_other_closed_by_eos(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    texts = prose(3)
    expected = [
        i for text in texts for i in [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    ]
    rows = pack(tokenizer, texts, 32)
    assert rows.dtype == torch.int64
    assert rows.shape == (len(expected) // 32, 32)
    assert rows.flatten().tolist() == expected[: rows.numel()]


def test_packing_stops_at_the_token_budget(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    read = []

    def texts() -> object:
        for text in prose(200):
            read.append(text)
            yield text

    rows = pack(tokenizer, texts(), 32, max_tokens=100)
    assert rows.shape == (3, 32)
    assert len(read) < 200  # the rest is not even read


def test_less_than_a_sequence_is_one_shorter_row(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    rows = pack(tokenizer, ["A short text."], 512)
    assert rows.tolist() == [[*tokenizer.encode("A short text.", add_special_tokens=False), tokenizer.eos_token_id]]
    repeated = filled(rows, 512)
    assert repeated.shape == (1, 512)
    assert torch.equal(repeated[0, : rows.shape[1]], repeated[0, rows.shape[1] : 2 * rows.shape[1]])


def test_no_text_is_no_row(tiny_model: Path) -> None:
    assert pack(load_tokenizer(tiny_model), [], 32).shape == (0, 32)


def test_a_split_takes_an_equal_part_of_every_dataset(
    bucket: Bucket, tiny_model: Path, write_dataset: Callable[..., Dataset]
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    ones, twos = write_dataset("ones", test=["one " * 100] * 9), write_dataset("twos", test=["two " * 100] * 9)
    rows = pack_split(bucket, tokenizer, [ones, twos], "test", 64, max_tokens=512)
    text = tokenizer.decode(rows.flatten())
    assert rows.shape == (8, 64)
    assert 0.8 < text.count("one") / text.count("two") < 1.25


def test_a_budget_is_drawn_from_the_whole_split_the_same_way_every_time(
    bucket: Bucket, tiny_model: Path, write_dataset: Callable[..., Dataset]
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    first, second = ["red " * 30] * 100, ["blue " * 30] * 100  # as two objects would leave them in a shard
    dataset = write_dataset("sorted", test=[*first, *second])
    rows = pack_split(bucket, tokenizer, [dataset], "test", 64, max_tokens=1024)
    text = tokenizer.decode(rows.flatten())
    assert text.count("red") > 20
    assert text.count("blue") > 20
    assert torch.equal(rows, pack_split(bucket, tokenizer, [dataset], "test", 64, max_tokens=1024))


def test_an_empty_split_is_refused(bucket: Bucket, tiny_model: Path, write_dataset: Callable[..., Dataset]) -> None:
    dataset = write_dataset("untested", test=[])
    with pytest.raises(TidemillError, match="split test of untested: expected at least one document, got none"):
        pack_split(bucket, load_tokenizer(tiny_model), [dataset], "test", 64)


def _numbered(n: int, first: int = 0) -> torch.Tensor:
    return torch.arange(first, first + n)[:, None].repeat(1, 4)


def _drawn(n_batches: int, *, skip: int = 0, replay: torch.Tensor | None = None, seed: int = 0) -> list[list[int]]:
    endless = batches(_numbered(10), replay, batch_size=4, replay_share=0.25, seed=seed)
    return [batch[:, 0].tolist() for batch in islice(endless, skip, skip + n_batches)]


def test_batches_depend_on_the_seed_alone() -> None:
    replay = _numbered(5, first=100)
    assert _drawn(20, replay=replay) == _drawn(20, replay=replay)
    assert _drawn(20, replay=replay) != _drawn(20, replay=replay, seed=1)


def test_resumed_batches_are_those_that_would_have_come() -> None:
    replay = _numbered(5, first=100)
    assert _drawn(13, skip=7, replay=replay) == _drawn(20, replay=replay)[7:]


def test_every_sequence_comes_once_an_epoch() -> None:
    seen = [number for batch in _drawn(5) for number in batch]
    assert sorted(seen[:10]) == list(range(10))
    assert sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_the_replay_share_is_kept() -> None:
    seen = [number for batch in _drawn(500, replay=_numbered(5, first=100)) for number in batch]
    # 2,000 draws with probability 0.25: the share's standard deviation is 0.0097
    assert sum(number >= 100 for number in seen) / len(seen) == pytest.approx(0.25, abs=0.04)


def test_without_replay_everything_is_new() -> None:
    assert all(number < 100 for batch in _drawn(50, replay=torch.empty(0, 4, dtype=torch.int64)) for number in batch)
