"""How much worse a challenger's answer is than the champion's to the same request, by one metric at a time. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from checks.answer_likeness import likeness, words_of
from checks.answer_refusals import refuses
from lake.recipe.rollout_metrics import Direction

N_GRAM = 4


class Pair(NamedTuple):
    """Both versions' answers to one request."""

    request_id: str
    prompt: str
    champion: str
    challenger: str


# Both versions' values for each pair `[n]`, in the order of the metric; None for what cannot be told.
Values = list[tuple[float, float] | None]
Measure = Callable[[Sequence[Pair]], Values]


def worse_by(values: tuple[float, float] | None, better: Direction) -> float | None:
    """What a paired test is fed with: in [-1, 1], above 0 where the challenger is worse, by the metric's good direction.

    `near`: any difference is worse. None stays None, and a value that is no number is none.
    """
    if values is None or not all(map(math.isfinite, values)):
        return None
    champion, challenger = values
    grown = challenger - champion
    worse = {"lower": grown, "higher": -grown, "near": abs(grown)}[better]
    return min(1.0, max(-1.0, worse))


def agreement(pair: Pair) -> tuple[float, float]:
    """Likeness of each answer to the champion's, in [0, 1]."""
    return 1.0, likeness(pair.champion, pair.challenger)


def answer_length(pair: Pair) -> tuple[float, float]:
    """(b - a) / (b + a) of the words of champion a and challenger b, in [-1, 1], against the champion's 0."""
    a, b = len(words_of(pair.champion)), len(words_of(pair.challenger))
    return 0.0, (b - a) / (b + a) if a + b else 0.0


def refusal_rate(pair: Pair) -> tuple[float, float]:
    """1 for an answer that refuses, else 0."""
    return float(refuses(pair.champion)), float(refuses(pair.challenger))


def repetition(pair: Pair) -> tuple[float, float]:
    """Share of repeated 4-grams of words of each answer."""
    return repeated_share(pair.champion), repeated_share(pair.challenger)


def repeated_share(text: str) -> float:
    """1 - distinct / all of the 4-grams of words, in [0, 1); 0 when there is none.

    seq-rep-4 of Welleck et al. 2020, Neural Text Generation with Unlikelihood Training, equation 11.
    """
    words = words_of(text)
    n_grams = len(words) - N_GRAM + 1
    distinct = {tuple(words[place : place + N_GRAM]) for place in range(n_grams)}
    return 1 - len(distinct) / n_grams if n_grams > 0 else 0.0


def each(measure: Callable[[Pair], tuple[float, float] | None]) -> Measure:
    """The same of many pairs."""
    return lambda pairs: [measure(pair) for pair in pairs]


# Those that need nothing but the answers; language, toxicity and perplexity need a model or a list.
MEASURES: Mapping[str, Measure] = {
    "agreement": each(agreement),
    "answer_length": each(answer_length),
    "refusal_rate": each(refusal_rate),
    "repetition": each(repetition),
}
