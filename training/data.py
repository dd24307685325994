"""From dataset shards to packed sequences: deterministic for a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lake.bucket import Bucket
from lake.errors import TidemillError
from lake.records import Dataset, Split


def read_texts(bucket: Bucket, dataset: Dataset, split: Split) -> Iterator[str]:
    """Texts of one split, in the order of the shards."""
    for ref in sorted(bucket.list(f"{dataset.prefix}shards/{split}-"), key=lambda ref: ref.key):
        yield from bucket.get_table(ref.key, columns=["text"])["text"].to_pylist()


def pack(
    tokenizer: Any, texts: Iterator[str] | Sequence[str], sequence_length: int, max_tokens: int | None = None
) -> Tensor:
    """Concatenate documents, each closed by EOS, and cut: int64 `[n, sequence_length]`, no padding.

    Stops once `max_tokens` are there. A remainder shorter than a sequence is dropped, unless it is all there is:
    then it is repeated up to one sequence, so that a tiny split still counts.
    """
    tokens: list[int] = []
    for text in texts:
        tokens.extend(tokenizer.encode(text, add_special_tokens=False))
        tokens.append(tokenizer.eos_token_id)
        if max_tokens is not None and len(tokens) >= max_tokens:
            tokens = tokens[:max_tokens]
            break
    if tokens and len(tokens) < sequence_length:
        tokens = (tokens * (sequence_length // len(tokens) + 1))[:sequence_length]
    n = len(tokens) // sequence_length
    return torch.tensor(tokens[: n * sequence_length], dtype=torch.int64).view(n, sequence_length)


def pack_split(
    bucket: Bucket,
    tokenizer: Any,
    datasets: Sequence[Dataset],
    split: Split,
    sequence_length: int,
    max_tokens: int | None = None,
) -> Tensor:
    """Pack a split of several datasets, each with an equal part of `max_tokens`.

    Raises TidemillError when there is no text at all.
    """
    share = max_tokens // len(datasets) if max_tokens is not None and datasets else None
    packed = [pack(tokenizer, read_texts(bucket, dataset, split), sequence_length, share) for dataset in datasets]
    rows = torch.cat(packed) if packed else torch.empty(0, sequence_length, dtype=torch.int64)
    if len(rows) == 0:
        raise TidemillError(
            f"split {split} of {', '.join(dataset.dataset_id for dataset in datasets) or 'no dataset'}",
            expected="at least one document",
            got="none",
            remedy="drop more documents, or raise validation_share and test_share in the recipe",
        )
    return rows


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
