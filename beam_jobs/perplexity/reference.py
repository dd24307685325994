"""What a drop is judged by: the n-gram models and thresholds that a job learns once and hands to its workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from beam_jobs.perplexity.buckets import Thresholds, terciles
from beam_jobs.perplexity.kneser_ney import Tensors
from beam_jobs.perplexity.ngram import SPECIFICATION, NgramModel
from beam_jobs.perplexity.scorer import HISTORY, Scorer, fold_of, make_scorer
from lake.errors import TidemillError
from lake.recipe import Perplexity

MIN_DOCUMENTS = 100  # fewer leave ten or less for the thresholds, and a vocabulary that knows next to nothing
HELD_OUT_EVERY = 10
_SPECIFICATION, _THRESHOLDS = "specification", "thresholds"


@dataclass(frozen=True)
class Reference:
    """`models`: one, two that are cross-fitted, or none where an ONNX export scores. Without thresholds, no buckets."""

    models: tuple[NgramModel, ...]
    thresholds: Thresholds | None

    def to_bytes(self) -> bytes:
        """As safetensors."""
        tensors: Tensors = {_SPECIFICATION: np.frombuffer(SPECIFICATION.encode(), np.uint8)}
        if self.thresholds:
            tensors[_THRESHOLDS] = np.array(self.thresholds, np.float64)
        for number, model in enumerate(self.models):
            tensors |= {f"{number}/{name}": tensor for name, tensor in model.tensors().items()}
        return bytes(save(tensors))

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """What `to_bytes` gave. Raises TidemillError, naming `where`, for anything else."""
        try:
            tensors = load(data)
            specification = tensors.pop(_SPECIFICATION).tobytes()
            if specification != SPECIFICATION.encode():
                raise KeyError(specification)
            found = tensors.pop(_THRESHOLDS, None)
            n_models = len({name.partition("/")[0] for name in tensors})
            models = [NgramModel.from_tensors(_below(f"{number}/", tensors)) for number in range(n_models)]
            return cls(tuple(models), Thresholds(float(found[0]), float(found[1])) if found is not None else None)
        except (SafetensorError, KeyError) as error:
            raise TidemillError(
                where,
                expected=f"n-gram models of specification {SPECIFICATION}",
                got=str(error),
                remedy="prepare the drop again, so that they are trained anew",
            ) from error


def learn(
    texts: Iterable[str], rules: Perplexity, *, judges_itself: bool = False, rejected_share: float = 0.0
) -> Reference | None:
    """Learn from the first `training_words` words of `texts` (`reference_documents` of them, for an ONNX export).

    `judges_itself` when they are of the very drop that will be judged: then two models are cross-fitted. Otherwise
    `rejected_share` tells how much of what was dropped before was rejected for its perplexity, see `terciles`.
    None when there are fewer than MIN_DOCUMENTS to train on: the drop stays unscored. Raises TidemillError when the
    recipe's folder is no export.
    """
    if rules.model != HISTORY:
        scorer = make_scorer(
            rules, ()
        )  # also where no thresholds are wanted: a job had better not start with half a model
        return Reference((), _thresholds(scorer, islice(texts, rules.reference_documents), rules, rejected_share))
    found = list(_within(texts, rules.training_words))
    held_out = found[::HELD_OUT_EVERY]
    trained_on = [text for place, text in enumerate(found) if place % HELD_OUT_EVERY]
    folds = [[t for t in trained_on if fold_of(t) != fold] for fold in (0, 1)] if judges_itself else [trained_on]
    if len(found) < MIN_DOCUMENTS or not all(folds):
        return None
    models = tuple(NgramModel.train(fold, rules.order) for fold in folds)
    return Reference(models, _thresholds(make_scorer(rules, models), held_out, rules, rejected_share))


def interleaved(sources: Iterable[Iterable[str]]) -> Iterator[str]:
    """A text of each source in turn, as long as it has some: a sample of the first words is then one of all sources."""
    for texts in zip_longest(*sources):
        yield from (text for text in texts if text is not None)


def _thresholds(scorer: Scorer, held_out: Iterable[str], rules: Perplexity, rejected_share: float) -> Thresholds | None:
    if rules.thresholds:
        return Thresholds(*rules.thresholds)
    scores = scorer.perplexities(list(held_out))
    scores = scores[~np.isnan(scores)]
    return terciles(scores, rejected_share) if len(scores) else None


def _within(texts: Iterable[str], n_words: int) -> Iterator[str]:
    """Texts until there are `n_words` words between them; the last is taken whole."""
    for text in texts:
        if n_words <= 0:
            return
        n_words -= len(text.split())
        yield text


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
