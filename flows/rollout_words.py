"""A rollout's figures in words: the same in the terminal, on the status page and in reports. Pure."""

from __future__ import annotations

from datetime import datetime

from lake.ledger.rollout_state import RolloutState
from lake.recipe.rollout import RolloutStep
from lake.recipe.rollout_metrics import metric
from lake.records import CheckResult, RolloutDecision, SplitResult

STAGES = {"shadow": "shadow", "ab": "A/B", "canary": "canary"}
OUTCOMES = {
    "running": "under way",
    "promoted": "promoted",
    "rolled_back": "rolled back",
    "undone": "promoted, then undone",
    "ended": "ended",
}
EVIDENCE = ("check", "champion", "challenger", "worse by", "interval", "margin", "p", "samples", "verdict")
_VERDICTS = {
    "no_data": "no data yet",
    "too_little": "too little data yet",
    "undecided": "undecided: nothing says that it is worse",
    "fine": "fine: not worse",
}


def share_in_words(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.2%}"


def step_in_words(step: RolloutStep) -> str:
    return f"{STAGES[step.stage]} {share_in_words(step.share)}"


def plan_in_short(state: RolloutState) -> str:
    return " → ".join([*(step_in_words(step) for step in state.plan.steps), destination(state)])


def destination(state: RolloutState) -> str:
    """What comes after the last step: nobody is promoted by an experiment."""
    return "full" if state.kind == "release" else "end"


def stage_of(state: RolloutState) -> str:
    """Where it is, or how it ended."""
    if state.state != "running":
        return OUTCOMES.get(state.state, state.state)
    return step_in_words(state.step) if state.step else "waiting for the challenger to be ready"


def versus(state: RolloutState) -> str:
    return (
        f"{state.challenger} against {state.champion}" if state.champion else f"{state.challenger}, the first version"
    )


def value_in_words(name: str, value: float | None) -> str:
    """An estimate in the metric's own unit."""
    if value is None:
        return "–"
    found = metric(name)
    if found.kind == "quantile":
        return f"{value:,.0f} ms" if value >= 10 else f"{value:.2g} ms"
    if metric(name).unit == "points":
        return f"{value:.1%}" if abs(value) >= 0.1 else f"{value:.2%}"
    if name == "cpu_s":
        return f"{value:.3g} s"
    if name == "energy_j":
        return f"{value:.3g} J"
    return f"{value:,.3g}"


def effect_in_words(name: str, effect: float | None) -> str:
    """How much worse the challenger is: `+1.2 pt` (points of a percentage), `+0.04`, or a factor such as `×1.12`."""
    if effect is None:
        return "–"
    if metric(name).unit == "ratio":
        return f"×{effect:.2f}" if effect < 100 else f"×{effect:.0f}"
    if metric(name).unit == "points":
        return f"{100 * effect:+.2f} pt" if abs(effect) < 0.0995 else f"{100 * effect:+.1f} pt"
    return f"{effect:+.2f}"


def interval_in_words(check: CheckResult) -> str:
    """The confidence sequence as it stands, `-0.20 to +1.10 pt`; an end that is open is told as such."""
    if check.lower is None and check.upper is None:
        return "–"
    low, high = (effect_in_words(check.metric, end) if end is not None else "?" for end in (check.lower, check.upper))
    return f"{low.removesuffix(' pt') if high.endswith(' pt') else low} to {high}"


def margin_in_words(name: str, margin: float) -> str:
    """What is still allowed, without a plus sign."""
    return effect_in_words(name, margin).removeprefix("+")


def p_value_in_words(p_value: float) -> str:
    if p_value >= 0.995:
        return "1"
    return f"{p_value:.2f}" if p_value >= 0.01 else f"{p_value:.0e}" if p_value > 0 else "0"


def verdict_in_words(check: CheckResult) -> str:
    if check.verdict == "worse":
        return "WORSE: rolls back" if check.severity == "fail" else "worse: a warning"
    return _VERDICTS[check.verdict]


def verdict_in_short(check: CheckResult) -> str:
    return {"worse": "WORSE" if check.severity == "fail" else "worse", "too_little": "too little"}.get(
        check.verdict, check.verdict.replace("_", " ")
    )


def evidence_row(check: CheckResult) -> tuple[str, ...]:
    """One line of evidence, in the order of EVIDENCE."""
    return (
        check.metric,
        value_in_words(check.metric, check.champion),
        value_in_words(check.metric, check.challenger),
        effect_in_words(check.metric, check.effect),
        interval_in_words(check),
        margin_in_words(check.metric, check.margin),
        p_value_in_words(check.p_value),
        f"{check.n_champion:,}/{check.n_challenger:,}",
        verdict_in_words(check),
    )


def split_in_words(split: SplitResult | None) -> str:
    """To be read after the word split."""
    if split is None or split.n_champion + split.n_challenger == 0:
        return "not judged yet"
    counted = f"{split.n_challenger:,} to the challenger, {split.n_champion:,} to the champion"
    p_value = p_value_in_words(split.p_value)
    if split.broken:
        return f"BROKEN: {counted}, planned {share_in_words(split.share)} (p {p_value}); no verdict rests on it"
    return f"as planned: {counted} (p {p_value})"


def decision_in_words(decision: RolloutDecision) -> str:
    names = {"roll_back": "rolled back", "promote": "went on", "start": "began", "hold": "held", "end": "ended"}
    where = decision.from_stage
    if decision.to_stage == decision.from_stage:
        return f"{names[decision.action]} in {where}: {decision.reason}"
    return f"{names[decision.action]}, {where} → {decision.to_stage}: {decision.reason}"


def duration_in_words(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`: two units at most."""
    whole = max(0, round(seconds))
    for unit, size, smaller, smaller_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def elapsed_s(begin: datetime, end: datetime) -> float:
    """Never below zero, whatever a clock does."""
    return max(0.0, (end - begin).total_seconds())
