"""From texts to perplexities, buckets and rejections: what the job calls for each batch of cleaned documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from beam_jobs.perplexity.buckets import Bucket, Thresholds, bucket_of
from beam_jobs.perplexity.ngram import NgramModel
from beam_jobs.simhash import Hashes
from lake.recipe import Perplexity

REASON = "high_perplexity"
HISTORY, BASE = "history", "base"


class Scorer(Protocol):
    def perplexities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """float64 `[n]`; NaN where there is too little text for a score."""


class Judged(NamedTuple):
    """Parallel to the documents `[n]`. NaN and None stand for those that are not in the sample."""

    perplexity: NDArray[np.float64]
    bucket: list[Bucket | None]
    rejected: list[str | None]  # the detail that goes with REASON, None for what is kept


class CrossFitted:
    """Two models, each trained on texts of one fold, score the texts of the other: none has learnt what it judges."""

    def __init__(self, models: tuple[NgramModel, NgramModel]) -> None:
        """`models[i]` was trained on the texts of fold `1 - i`."""
        self._models = models

    def perplexities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        found = np.zeros(len(texts))
        fold = np.array([fold_of(text) for text in texts], np.int64)
        for number, model in enumerate(self._models):
            places = np.flatnonzero(fold == number)
            found[places] = model.perplexities([texts[place] for place in places.tolist()])
        return found


def fold_of(text: str) -> int:
    """0 or 1, by the text's hash."""
    return int(xxhash.xxh3_64_intdigest(text.encode()) & 1)


def make_scorer(rules: Perplexity, models: Sequence[NgramModel], *, n_threads: int = 0) -> Scorer:
    """The recipe's model. `models` are those of a `Reference`: one, two that are cross-fitted, none for an ONNX export.

    Raises TidemillError when the recipe's folder is no export; `n_threads` is for that alone, 0 takes all cores.
    """
    if rules.model != HISTORY:
        from beam_jobs.perplexity.language_model import LanguageModel  # ONNX Runtime takes a second to import

        folder = Path(rules.model.removeprefix("file:"))
        return LanguageModel(folder, max_tokens=rules.max_tokens, batch_size=rules.batch_size, n_threads=n_threads)
    if len(models) == 1:
        return models[0]
    first, second = models
    return CrossFitted((first, second))


def is_sampled(exact: Hashes, share: float) -> NDArray[np.bool_]:
    """Which documents are scored: bool `[n]`, by the hash of their words, so that a text's copies fare alike."""
    # The low bits: the high ones choose the split.
    return (exact & np.uint64(0xFFFFFFFF)) / 2**32 < share


def judge(
    scorer: Scorer, texts: Sequence[str], exact: Hashes, rules: Perplexity, thresholds: Thresholds | None
) -> Judged:
    """Score the sampled among documents `[n]` and reject by the recipe. Without thresholds there are no buckets."""
    places = np.flatnonzero(is_sampled(exact, rules.share))
    perplexity = np.full(len(texts), np.nan)
    perplexity[places] = scorer.perplexities([texts[place] for place in places.tolist()])
    bucket: list[Bucket | None] = [None] * len(texts)
    if thresholds:
        bucket = bucket_of(perplexity, thresholds)
    rejected = [_broken(value, found, rules) for value, found in zip(perplexity.tolist(), bucket, strict=True)]
    return Judged(perplexity, bucket, rejected)


def _broken(perplexity: float, bucket: Bucket | None, rules: Perplexity) -> str | None:
    if rules.max_perplexity is not None and perplexity > rules.max_perplexity:  # NaN is not
        return f"{perplexity:.4g}, at most {rules.max_perplexity:.4g}"
    return f"{perplexity:.4g}, {bucket}" if bucket in rules.drop else None
