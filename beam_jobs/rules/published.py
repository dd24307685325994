"""The sets of published rules that a recipe has switched on: their measures, and the first of their rules that breaks."""

from __future__ import annotations

from beam_jobs.rules import fineweb, gopher, repetition, toxicity
from beam_jobs.rules.analysis import Analysis
from beam_jobs.rules.bound import Bound, first_broken
from lake.recipe.quality import Quality


def judge(text: str, rules: Quality) -> tuple[dict[str, float], tuple[str, str] | None]:
    """The measures that the sets ask for, and `(reason, detail)` of the first broken rule, None when all hold."""
    analysis, measures, bounds = Analysis(text), dict[str, float](), list[Bound]()
    if rules.gopher:
        measures |= gopher.measure(analysis, rules.gopher)
        bounds += gopher.bounds(rules.gopher)
    if rules.gopher_repetition:
        measures |= repetition.measure(analysis, rules.gopher_repetition)
        bounds += repetition.bounds(rules.gopher_repetition)
    if rules.fineweb:
        measures |= fineweb.measure(analysis, rules.fineweb)
        bounds += fineweb.bounds(rules.fineweb)
    if rules.toxicity:
        measures |= toxicity.measure(text, rules.toxicity)
        bounds += toxicity.bounds(rules.toxicity)
    return measures, first_broken(measures, bounds)
