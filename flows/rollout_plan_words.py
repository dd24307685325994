"""A rollout plan explained: what each step does, what each check can do, and how errors are budgeted. Pure."""

from __future__ import annotations

from typing import NamedTuple

from flows.rollout_words import STAGES, duration_in_words, margin_in_words, share_in_words, step_in_words
from lake.recipe.rollout import Rollout, RolloutCheck, RolloutStep


class Paragraph(NamedTuple):
    heading: str
    lines: tuple[str, ...]


def explained(plan: Rollout) -> list[Paragraph]:
    """The whole plan in words, in the order in which a challenger meets it."""
    steps = [
        Paragraph(f"Step {number}: {step_in_words(step)}", tuple(_step(plan, step, number)))
        for number, step in enumerate(plan.steps, start=1)
    ]
    failing = [check for check in plan.checks if check.severity == "fail"]
    warning = [check for check in plan.checks if check.severity == "warn"]
    return [
        Paragraph("Before", ("The challenger gets a replica of its own; nothing is routed to it until it is ready.",)),
        *steps,
        Paragraph("Then", (_promotion(plan),)),
        Paragraph("What rolls back", (*(_check(check) for check in failing), _budget(plan, len(failing)), _HARD)),
        Paragraph("What only warns", tuple(_check(check) for check in warning) or ("Nothing.",)),
        Paragraph("What holds", _holds(plan)),
    ]


_HARD = (
    "Hard signals roll back at once, without a test: no healthy replica of the challenger is left, "
    "or half of its last requests fail in a burst."
)


def _step(plan: Rollout, step: RolloutStep, number: int) -> list[str]:
    told = [_traffic(step)]
    wanted = [f"{step.min_requests:,} requests that the challenger has answered"]
    if step.min_duration_s:
        wanted.append(f"{duration_in_words(step.min_duration_s)} have passed")
    told.append(
        f"Goes on once there are {' and '.join(wanted)}, and no check that rolls back looks worse or lacks samples."
    )
    otherwise = "rolls back" if plan.on_inconclusive == "roll_back" else "holds until a person acts"
    told.append(f"Without a verdict after {duration_in_words(step.max_duration_s)} it {otherwise}.")
    if step.pause == "approval":
        told.append("Then it waits for a person: 'tidemill rollout approve MODEL'.")
    names = [check.metric for check in plan.checks_of(step.stage)]
    told.append(f"Compared: {', '.join(names)}." if names else "NOTHING is compared here: only hard signals count.")
    if not names and number == len(plan.steps):
        told.append("Whatever the challenger's answers are like, it is promoted after this step.")
    return told


def _traffic(step: RolloutStep) -> str:
    if step.stage == "shadow":
        share = "Every request" if step.share == 1 else f"{share_in_words(step.share)} of all requests"
        verb = "is" if step.share == 1 else "are"
        return f"{share} {verb} copied to the challenger. Its answers are compared and thrown away: no client sees one."
    told = f"{share_in_words(step.share)} of live requests are answered by the challenger, the others by the champion."
    if step.is_sticky:
        return f"{told} Who names a user (body's `user`, `x-user`, cookie) stays with one version; checks take a user's requests as independent, which they are not quite."
    return f"{told} Each request is drawn anew."


def _promotion(plan: Rollout) -> str:
    if not plan.steps:
        return "There are no steps: the challenger gets all traffic as soon as it is ready, UNTESTED under traffic."
    return (
        "The challenger becomes the champion and gets all traffic. The one before stays ready for "
        f"{duration_in_words(plan.retain_champion_s)}: 'tidemill rollout undo MODEL' goes back at once. "
        f"After a rollback no other challenger begins for {duration_in_words(plan.cool_down_s)}."
    )


def _check(check: RolloutCheck) -> str:
    margin = margin_in_words(check.metric, check.allowed)
    if check.of.unit == "ratio":
        what = f"more than {margin} the champion's" if check.allowed != 1 else "more than the champion's"
        if check.direction == "higher":
            what = f"less than the champion's by more than a factor of {margin}"
    elif check.direction == "near":
        what = f"further from the champion's than {margin}"
    elif check.metric == "agreement":
        what = f"less alike the champion's answers than {1 - check.allowed:.2g} (1 is equal)"
    else:
        worse = "above" if check.direction == "lower" else "below"
        what = f"more than {margin} {worse} the champion's" if check.allowed else f"{worse} the champion's at all"
    acts = "rolls back" if check.severity == "fail" else "warns"
    told = f"{check.metric} ({check.of.told}): {acts} once it is {what}, beyond chance"
    told += f"; has a say in {', '.join(STAGES[stage] for stage in check.of.stages)} from {check.min_samples} samples of each version"
    if check.proof:
        told += "; goes on only once it is PROVEN not to be worse, which takes far more traffic"
    if check.url:
        told += f"; {check.url} is asked every {duration_in_words(check.interval_s)}"
    return f"{told}."


def _budget(plan: Rollout, n_failing: int) -> str:
    if not n_failing:
        return "No check rolls back: whatever is found is only told."
    each = plan.error_budget / n_failing
    return (
        f"Error budget: a challenger that is not worse is rolled back with a chance of at most {plan.error_budget:.3g} "
        f"in the whole rollout, however often it is looked at. {n_failing} checks may spend {each:.2g} each."
    )


def _holds(plan: Rollout) -> tuple[str, ...]:
    last = "rolls back" if plan.on_inconclusive == "roll_back" else "goes on holding until a person acts"
    return (
        "No data, or too little of it: never a reason to go on.",
        "A check that rolls back and looks worse, as long as that may be chance.",
        "A split that is not as planned (sample-ratio mismatch): no verdict rests on it, and an alarm says so.",
        "A gateway or a ledger that is away: everything stays as it is. A controller that stays dead: the champion gets "
        "all live traffic, and an alarm says so.",
        f"All of this until the step's time is over: then it {last}.",
    )
