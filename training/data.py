"""From dataset shards to packed sequences: deterministic for a seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lake.bucket import Bucket
from lake.errors import TidemillError
from lake.records import Dataset, Split

_DRAW_SEED = 0
_TEXTS_AT_ONCE = 64  # the tokenizer spreads a list over the cores


def read_texts(bucket: Bucket, dataset_prefix: str, split: Split) -> Iterator[str]:
    """Texts of one split, in the order of the shards."""
    for ref in sorted(bucket.list(f"{dataset_prefix}shards/{split}-"), key=lambda ref: ref.key):
        yield from bucket.get_table(ref.key, columns=["text"])["text"].to_pylist()


def shuffled(texts: Iterable[str]) -> list[str]:
    """In random order, the same every time: shards keep together what came in one object."""
    listed = list(texts)
    return [listed[place] for place in np.random.default_rng(_DRAW_SEED).permutation(len(listed))]


def pack(tokenizer: Any, texts: Iterable[str], sequence_length: int, max_tokens: int | None = None) -> Tensor:
    """Concatenate documents, each closed by EOS, and cut: int64 `[n, sequence_length]`, no padding.

    Stops once `max_tokens` are there. A remainder shorter than a sequence is dropped, unless it is all there is: then
    it is the only, shorter row.
    """
    return _cut(_tokens(tokenizer, texts, max_tokens), sequence_length)


def pack_split(
    bucket: Bucket,
    tokenizer: Any,
    datasets: Sequence[Dataset],
    split: Split,
    sequence_length: int,
    max_tokens: int | None = None,
) -> Tensor:
    """Pack a split of several datasets, with `max_tokens` about an equal part of each, its documents drawn at random.

    The draw is the same every time. Raises TidemillError when there is no text at all.
    """
    share = math.ceil(max_tokens / len(datasets)) if max_tokens is not None and datasets else None
    parts = [np.empty(0, np.int64)]
    for dataset in datasets:
        texts = read_texts(bucket, dataset.prefix, split)
        parts.append(_tokens(tokenizer, texts if share is None else shuffled(texts), share))
    rows = _cut(np.concatenate(parts), sequence_length)
    if len(rows) == 0:
        raise TidemillError(
            f"split {split} of {', '.join(dataset.dataset_id for dataset in datasets) or 'no dataset'}",
            expected="at least one document",
            got="none",
            remedy="drop more documents, or raise validation_share and test_share in the recipe",
        )
    return rows


def filled(rows: Tensor, sequence_length: int) -> Tensor:
    """A single shorter row repeated up to `sequence_length`, so that it goes into a batch with others. For training."""
    return rows.repeat(1, math.ceil(sequence_length / rows.shape[1]))[:, :sequence_length]


def batches(new: Tensor, replay: Tensor | None, *, batch_size: int, replay_share: float, seed: int) -> Iterator[Tensor]:
    """Endless batches int64 `[batch_size, sequence_length]`, each drawn without replacement within an epoch.

    Every sequence is a replayed one with probability `replay_share`. The i-th batch depends on `seed` alone, so a
    resumed training skips what it has seen.
    """
    draws = torch.Generator().manual_seed(seed)
    fresh, old = _epochs(new, seed + 1), _epochs(replay, seed + 2) if replay is not None and len(replay) else None
    while True:
        from_old = torch.rand(batch_size, generator=draws) < replay_share
        yield torch.stack([next(old) if old is not None and bool(chosen) else next(fresh) for chosen in from_old])


def _epochs(rows: Tensor, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        for index in torch.randperm(len(rows), generator=generator):
            yield rows[index]


def _tokens(tokenizer: Any, texts: Iterable[str], max_tokens: int | None) -> NDArray[np.int64]:
    """Ids of all texts, EOS behind each: int64 `[n]`."""
    parts, n = [np.empty(0, np.int64)], 0
    remaining = iter(texts)
    while (max_tokens is None or n < max_tokens) and (some := list(islice(remaining, _TEXTS_AT_ONCE))):
        for ids in tokenizer(some, add_special_tokens=False)["input_ids"]:
            parts.append(np.array([*ids, tokenizer.eos_token_id], np.int64))
            n += len(ids) + 1
    return np.concatenate(parts)[:max_tokens]


def _cut(tokens: NDArray[np.int64], sequence_length: int) -> Tensor:
    length = min(sequence_length, len(tokens)) or sequence_length
    n = len(tokens) // length
    return torch.from_numpy(tokens[: n * length]).view(n, length)
