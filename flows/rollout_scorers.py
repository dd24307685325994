"""Measures of answers that need a model or a list: language, listed words, perplexity under the base model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from checks.answers import MEASURES, Measure, Pair, Values, each
from lake.errors import TidemillError
from lake.recipe import Recipe, Rollout
from lake.recipe.quality import Toxicity

# Below, the text is too short or the guess too unsure to say that it is in another language.
LANGUAGE_CHARACTERS, LANGUAGE_PROBABILITY = 20, 0.9
# A pair of so many tokens each takes a second of one core, and serving wants the cores.
PERPLEXITY_PAIRS, PERPLEXITY_TOKENS = 2, 128


def measures(recipe: Recipe, model_cache: Path) -> Mapping[str, Measure]:
    """A measure for each metric of answers; the one of a list or a model raises TidemillError where there is none."""
    toxicity = recipe.prepare.quality.toxicity
    return {
        **MEASURES,
        "language": each(in_prompts_language),
        "toxicity": _no_list if toxicity is None else listed_words(toxicity),
        "perplexity": BasePerplexity(lambda: _base_model(recipe.base_model, model_cache)),
    }


def untellable(recipe: Recipe) -> dict[str, str]:
    """Metrics that nothing would ever tell of this model, with the reason."""
    told = {}
    if recipe.prepare.quality.toxicity is None:
        told["toxicity"] = "the recipe has no list of words: prepare.quality.toxicity"
    if recipe.monitoring.log_share == 0:
        needing = [check.metric for check in recipe.rollout.checks if check.of.needs_log]
        told.update(dict.fromkeys(needing, "the prediction log is off: monitoring.log_share is 0"))
    return told


def tellable(plan: Rollout, recipe: Recipe) -> Rollout:
    """The plan without checks that would wait for ever, and without sticky steps where nobody could count users."""
    without = untellable(recipe)
    plan = plan.model_copy(update={"checks": tuple(check for check in plan.checks if check.metric not in without)})
    if recipe.monitoring.log_share > 0:
        return plan
    return plan.model_copy(update={"steps": tuple(step.model_copy(update={"sticky": "none"}) for step in plan.steps)})


def in_prompts_language(pair: Pair) -> tuple[float, float]:
    """1 for an answer in the prompt's language, else 0. What is too short or unsure to tell is taken to be in it."""
    from beam_jobs.rules.language import detect_language

    def language(text: str) -> str | None:
        if sum(map(str.isalpha, text[: 10 * LANGUAGE_CHARACTERS])) < LANGUAGE_CHARACTERS:
            return None
        code, probability = detect_language(text)
        return code if probability >= LANGUAGE_PROBABILITY else None

    asked = language(pair.prompt)
    return tuple(  # type: ignore[return-value]  # two of them
        float(asked is None or language(answer) in (None, asked)) for answer in (pair.champion, pair.challenger)
    )


def listed_words(rules: Toxicity) -> Measure:
    """1 for an answer with a word or phrase of the recipe's list, else 0. Raises TidemillError for an unreadable list."""
    from beam_jobs.rules.toxicity import measure

    def has_listed(text: str) -> float:
        return float(measure(text, rules)["listed_words"] > 0)

    return each(lambda pair: (has_listed(pair.champion), has_listed(pair.challenger)))


class BasePerplexity:
    """Nats a token of each answer under the base model, for a few of the pairs: the others are not told."""

    def __init__(self, load: Callable[[], Callable[[Sequence[str]], Sequence[float]]]) -> None:
        """`load` gives what turns texts `[n]` into perplexities `[n]`; it is called when there is something to score."""
        self._load = load
        self._perplexities: Callable[[Sequence[str]], Sequence[float]] | None = None

    def __call__(self, pairs: Sequence[Pair]) -> Values:
        chosen = few(pairs, PERPLEXITY_PAIRS)
        values: Values = [None] * len(pairs)
        if not chosen:
            return values
        self._perplexities = self._perplexities or self._load()
        texts = [text for place in chosen for text in (pairs[place].champion, pairs[place].challenger)]
        nats = np.log(self._perplexities(texts)).reshape(-1, 2)  # NaN for fewer than two tokens
        for place, (champion, challenger) in zip(chosen, nats.tolist(), strict=True):
            values[place] = (champion, challenger)
        return values


def few(pairs: Sequence[Pair], n: int) -> list[int]:
    """Places of at most `n` of the pairs, drawn by the hash of their request: in order, the same at every try."""
    drawn = sorted(range(len(pairs)), key=lambda place: hashlib.sha256(pairs[place].request_id.encode()).digest())
    return sorted(drawn[:n])


def _base_model(name: str, cache: Path) -> Callable[[Sequence[str]], Sequence[float]]:
    """Exports the model at first use: a minute. Raises TidemillError when it cannot be exported."""
    from beam_jobs.perplexity.language_model import LanguageModel
    from training.export import export_base

    cache.mkdir(parents=True, exist_ok=True)
    model = LanguageModel(
        export_base(name, cache), max_tokens=PERPLEXITY_TOKENS, batch_size=2 * PERPLEXITY_PAIRS, n_threads=1
    )
    return lambda texts: model.perplexities(texts).tolist()


def _no_list(_: Sequence[Pair]) -> Values:
    raise TidemillError(
        "the rollout check toxicity",
        expected="a list of words in the recipe",
        got="none",
        remedy="give one in prepare.quality.toxicity, or take the check out of the plan",
    )
