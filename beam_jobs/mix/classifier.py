"""Domains learned from labelled seeds: multinomial logistic regression on hashed TF-IDF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beam_jobs.mix.seeds import Seed
from beam_jobs.mix.terms import Terms, sublinear, terms_of
from lake.errors import TidemillError

N_FEATURES = 1 << 16
# 1 / λ of mean loss + λ/2 · |w|²: with it, confidence does not grow with the number of seeds alone. With four domains
# of real text, 97% of known documents are at least 0.6 sure from 20 seeds a domain on, and most of a fifth, unknown one are not.
_INVERSE_PENALTY = 5_000
_SPECIFICATION = "xxh3-64;terms:case-folded-words-of-2-to-30-letters;2^16;v1"


@dataclass(frozen=True, eq=False)
class Classifier:
    """`idf` float32 `[N_FEATURES]`, `weights` float32 `[n_labels, N_FEATURES]`, `bias` float32 `[n_labels]`."""

    labels: tuple[str, ...]
    idf: NDArray[np.float32]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def probabilities(self, terms: Terms) -> NDArray[np.float64]:
        """float64 `[n_documents, n_labels]`; rows sum to 1, and are even where no seed has a word of the document."""
        features = _features(terms)
        weights = _normalised(terms, sublinear(terms.counts) * self.idf[features])
        # Seeds consist of known words; of a document that does not, the bias counts as much less.
        known = np.sqrt(terms.sums(np.where(self.weights.any(axis=0).take(features), weights * weights, 0)))
        logits = np.stack([terms.sums(weights * row[features]) for row in self.weights], axis=1)
        logits += known[:, None] * self.bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float64)

    def to_bytes(self) -> bytes:
        """As safetensors: arrays alone, nothing that runs when it is read."""
        from safetensors.numpy import save

        name = np.frombuffer("\n".join((_SPECIFICATION, *self.labels)).encode(), np.uint8)
        return bytes(save({"idf": self.idf, "weights": self.weights, "bias": self.bias, "name": name}))

    @classmethod
    def from_bytes(cls, packed: bytes, where: str) -> Classifier:
        """What `to_bytes` gave. Raises TidemillError when it is something else."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(packed)
            specification, *labels = arrays.pop("name").tobytes().decode().split("\n")
        except (SafetensorError, KeyError, UnicodeDecodeError) as error:
            raise _not_ours(where, f"{type(error).__name__}: {error}") from error
        shapes = {name: array.shape for name, array in arrays.items()}
        ours = {"idf": (N_FEATURES,), "weights": (len(labels), N_FEATURES), "bias": (len(labels),)}
        if specification != _SPECIFICATION or shapes != ours:
            raise _not_ours(where, f"{specification} with arrays {shapes}")
        return cls(tuple(labels), **arrays)


def train(seeds: Sequence[Seed], labels: Sequence[str]) -> Classifier:
    """Learn the domains of the seeds; the same seeds give the same classifier. `labels` give their order.

    Features are sublinear TF-IDF of unit length (Manning, Raghavan, Schütze 2008, section 6.4); domains weigh the same,
    however many seeds they have.
    """
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    known = tuple(label for label in labels if any(seed.domain == label for seed in seeds))
    terms = terms_of([seed.text for seed in seeds])
    features = _features(terms)
    df = np.bincount(features, minlength=N_FEATURES)
    idf = (np.log((1 + len(seeds)) / (1 + df)) + 1).astype(np.float32)
    weights = _normalised(terms, sublinear(terms.counts) * idf[features])
    seen, columns = np.unique(features, return_inverse=True)  # a tenth of all, and training takes as much less
    matrix = csr_matrix((weights, columns, terms.starts), shape=(len(seeds), len(seen)))
    model = LogisticRegression(C=_INVERSE_PENALTY / len(seeds), class_weight="balanced", max_iter=2_000)
    model.fit(matrix, [known.index(seed.domain) for seed in seeds])
    learned, bias = model.coef_, model.intercept_
    if len(known) == 2:  # of two classes it gives the second one's log odds
        learned, bias = np.concatenate([-learned, learned]) / 2, np.concatenate([-bias, bias]) / 2
    all_weights = np.zeros((len(known), N_FEATURES), np.float32)
    all_weights[:, seen] = learned
    return Classifier(known, idf, all_weights, bias.astype(np.float32))


def _features(terms: Terms) -> NDArray[np.int64]:
    return (terms.hashes & np.uint64(N_FEATURES - 1)).astype(np.int64)


def _normalised(terms: Terms, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights by term, of Euclidean length 1 by document."""
    lengths = np.sqrt(terms.sums(weights * weights))
    return weights / np.maximum(lengths, 1e-12)[terms.documents]


def _not_ours(where: str, got: str) -> TidemillError:
    return TidemillError(where, expected=f"a classifier of {_SPECIFICATION}", got=got, remedy="train it again")
