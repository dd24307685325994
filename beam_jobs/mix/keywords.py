"""Domains by keywords: whole words and phrases, with weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from beam_jobs.mix.words import words_of
from lake.recipe.mix import Domain

_BETWEEN = "  "  # two spaces, so that a phrase is found again where it follows itself


class Keywords:
    """All domains' keywords, looked up in one go over a document's words."""

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        self._domains = {name: domain for name, domain in domains.items() if domain.keywords}
        self._words: dict[str, list[tuple[str, float]]] = {}  # word → its weight in each domain
        self._phrases: dict[str, dict[str, list[tuple[str, float]]]] = {}  # first word → phrase → the same
        for name, domain in self._domains.items():
            for keyword, weight in domain.keywords.items():
                first, *others = words_of(keyword)
                phrases = self._phrases.setdefault(first, {}) if others else self._words
                phrases.setdefault(_joined([first, *others]) if others else first, []).append((name, weight))

    def __bool__(self) -> bool:
        return bool(self._domains)

    def domain_of(self, words: Sequence[str]) -> str | None:
        """The domain of highest score among those with enough matches for the document's length, or None."""
        scores = self._scores(words)
        best, best_score = None, 0.0
        for name, domain in self._domains.items():
            score = scores.get(name, 0.0)
            if score > best_score and score >= domain.min_matches and 100 * score >= domain.min_density * len(words):
                best, best_score = name, score
        return best

    def _scores(self, words: Sequence[str]) -> dict[str, float]:
        scores: dict[str, float] = {}
        distinct = set(words)
        for word in distinct & self._words.keys():
            _add(scores, self._words[word], words.count(word))
        firsts = distinct & self._phrases.keys()
        if firsts:
            text = _joined(words)
            for first in firsts:
                for phrase, weights in self._phrases[first].items():
                    _add(scores, weights, text.count(phrase))
        return scores


def _joined(words: Sequence[str]) -> str:
    return f" {_BETWEEN.join(words)} "


def _add(scores: dict[str, float], weights: Sequence[tuple[str, float]], n_matches: int) -> None:
    for name, weight in weights:
        scores[name] = scores.get(name, 0.0) + weight * n_matches
