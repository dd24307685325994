"""What a rollout knows so far, as one value that is kept in the ledger, and how a look adds to it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic import Field, ValidationError

from bentos.counters import Block, Snapshot, added, block
from bentos.sequential.means import MeanTest, PairedTest
from bentos.sequential.quantiles import QuantileTest
from bentos.sequential.rates import RateTest
from bentos.sequential.split import SplitTest
from lake.ledger.rollout_state import Observations
from lake.recipe import RolloutCheck, RolloutStep
from lake.recipe.rollout_metrics import Kind, Stage, quantile_of
from lake.records import Record

# Looks that a burst of errors is searched in.
N_RECENT = 5
# Costs are told of a version, not of a request: an average over so many requests is one value of them.
COST_REQUESTS = 10
# Costs are compared where one version is asked at most so many times as often as the other.
MAX_COST_RATIO = 3
# What tells in which units a sticky step has split its traffic: users.
SPLIT = "split"

Test = RateTest | QuantileTest | PairedTest | MeanTest

_READ: dict[Kind, Callable[[Any], Test]] = {
    "rate": RateTest.model_validate,
    "quantile": QuantileTest.model_validate,
    "paired": PairedTest.model_validate,
    "mean": MeanTest.model_validate,
}


class Looked(Record):
    """Both versions' requests and errors in one look."""

    n_champion: int
    n_champion_errors: int
    n_challenger: int
    n_challenger_errors: int


class Evidence(Record):
    """One rollout's evidence. JSON in and out.

    `snapshot` holds the counters up to which everything has been taken in; None until the step's routes are confirmed.
    `elapsed_s`, `champion`, `challenger` and `split` belong to the step, `tests` (by metric) to the whole rollout: they are
    e-processes, which may go on through all steps. `observed` is the last entry that was read of what others have seen.
    """

    snapshot: Snapshot | None = None
    elapsed_s: float = 0.0
    champion: Block = Block()
    challenger: Block = Block()
    champion_unpriced: Block = Block(cpu_s=0.0, energy_j=0.0)
    challenger_unpriced: Block = Block(cpu_s=0.0, energy_j=0.0)
    recent: tuple[Looked, ...] = ()
    tests: dict[str, dict[str, Any]] = Field(default_factory=dict)
    split: SplitTest | None = None
    observed: int = 0

    def test(self, check: RolloutCheck) -> Test:
        """The check's test as it stands; a new one before there was anything to see."""
        kept = self.tests.get(check.metric)
        try:
            return begun(check) if kept is None else _READ[check.of.kind](kept)
        except ValidationError:  # of another version of this code: what it has seen is lost, the rollout is not
            return begun(check)

    def champion_errors(self) -> tuple[int, int] | None:
        """The champion's requests and errors in the whole rollout; None where no check counts them."""
        kept = self.tests.get("error_rate", {})
        counted = kept.get("n_champion"), kept.get("k_champion")
        return (counted[0], counted[1]) if isinstance(counted[0], int) and isinstance(counted[1], int) else None


def begun(check: RolloutCheck) -> Test:
    """The test of a check before any data."""
    kind = check.of.kind
    if kind == "rate":
        return RateTest(margin=check.allowed)
    if kind == "quantile":
        return QuantileTest(quantile=quantile_of(check.metric)[1], margin=check.allowed)
    if kind == "paired":
        return PairedTest(margin=check.allowed)
    return MeanTest(margin=check.allowed, ratio=check.of.unit == "ratio", higher_is_worse=check.direction == "lower")


def entered(evidence: Evidence, step: RolloutStep) -> Evidence:
    """What a step begins with: the tests so far, and nothing of its own."""
    return Evidence(
        tests=evidence.tests,
        observed=evidence.observed,
        split=None if step.stage == "shadow" else SplitTest(share=step.share),
    )


def taken_in(
    evidence: Evidence,
    now: Snapshot,
    *,
    model: str,
    champion: str,
    challenger: str,
    step_index: int,
    step: RolloutStep,
    checks: Iterable[RolloutCheck],
    seen: Sequence[tuple[int, Observations]],
) -> Evidence | None:
    """The evidence after one more look; None when the gateway's counters began anew, or a clock was set, since the last.

    `seen` are entries of others, with their numbers; those of an earlier step count for the tests, as they come late, and
    not for the split.
    """
    before = evidence.snapshot
    if before is None:
        raise ValueError("evidence without a snapshot, expected one that counts from the step's beginning")
    ours, theirs = block(before, now, model, champion), block(before, now, model, challenger)
    if ours is None or theirs is None:
        return None
    tests = dict(evidence.tests)
    for check in checks:
        test = evidence.test(check)
        if step.stage in check.of.stages:
            test = _after_block(test, check, ours, theirs)
        test = _after_observations(test, check, [entry for _, entry in seen])
        if step.stage in check.of.stages or test.n_challenger:
            tests[check.metric] = test.model_dump(mode="json")
    priced = evidence.model_copy(
        update={
            "champion_unpriced": added(evidence.champion_unpriced, ours),
            "challenger_unpriced": added(evidence.challenger_unpriced, theirs),
        }
    )
    here = [entry for _, entry in seen if entry.step_index == step_index]
    looked = Looked(
        n_champion=ours.n_requests,
        n_champion_errors=ours.n_errors,
        n_challenger=theirs.n_requests,
        n_challenger_errors=theirs.n_errors,
    )
    return _with_costs(priced, step.stage, checks, tests).model_copy(
        update={
            "snapshot": now.only(model, (champion, challenger)),
            "elapsed_s": evidence.elapsed_s + (now.taken_at - before.taken_at).total_seconds(),
            "champion": added(evidence.champion, ours),
            "challenger": added(evidence.challenger, theirs),
            "recent": (*evidence.recent, looked)[-N_RECENT:],
            "split": _split(evidence.split, step, ours, theirs, here),
            "observed": max((number for number, _ in seen), default=evidence.observed),
        }
    )


def _after_block(test: Test, check: RolloutCheck, ours: Block, theirs: Block) -> Test:
    if isinstance(test, RateTest):
        return test.updated(ours.n_requests, ours.n_errors, theirs.n_requests, theirs.n_errors)
    if isinstance(test, QuantileTest):
        if quantile_of(check.metric)[0] == "first_token":
            return test.updated(ours.first_tokens, theirs.first_tokens)
        return test.updated(ours.latencies, theirs.latencies)
    return test


def _after_observations(test: Test, check: RolloutCheck, seen: Sequence[Observations]) -> Test:
    for entry in seen:
        if entry.metric != check.metric:
            continue
        if isinstance(test, PairedTest):
            test = test.updated(entry.paired)
        elif isinstance(test, MeanTest):
            test = test.updated(entry.champion, entry.challenger)
    return test


def _with_costs(
    evidence: Evidence, stage: Stage, checks: Iterable[RolloutCheck], tests: dict[str, dict[str, Any]]
) -> Evidence:
    """Turn what enough requests have cost into one value of each version."""
    ours, theirs = evidence.champion_unpriced, evidence.challenger_unpriced
    fewest, most = sorted((ours.n_requests, theirs.n_requests))
    if fewest >= COST_REQUESTS and most > MAX_COST_RATIO * fewest:  # a process costs something when nobody asks it
        nothing = Block(cpu_s=0.0, energy_j=0.0)
        return evidence.model_copy(
            update={"tests": tests, "champion_unpriced": nothing, "challenger_unpriced": nothing}
        )
    if fewest < COST_REQUESTS:
        return evidence.model_copy(update={"tests": tests})
    for check in checks:
        told = {"cpu_s": (ours.cpu_s, theirs.cpu_s), "energy_j": (ours.energy_j, theirs.energy_j)}.get(check.metric)
        if stage not in check.of.stages or told is None or told[0] is None or told[1] is None:
            continue
        test = MeanTest.model_validate(tests[check.metric])
        priced = test.updated((told[0] / ours.n_requests,), (told[1] / theirs.n_requests,))
        tests[check.metric] = priced.model_dump(mode="json")
    nothing = Block(cpu_s=0.0, energy_j=0.0)
    return evidence.model_copy(update={"tests": tests, "champion_unpriced": nothing, "challenger_unpriced": nothing})


def _split(
    split: SplitTest | None, step: RolloutStep, ours: Block, theirs: Block, seen: Sequence[Observations]
) -> SplitTest | None:
    """A sticky step splits users: its requests come in users' portions and say little about the split."""
    if split is None:
        return None
    if not step.is_sticky:
        return split.updated(ours.n_assigned, theirs.n_assigned)
    for entry in seen:
        if entry.metric == SPLIT:
            split = split.updated(len(entry.champion), len(entry.challenger))
    return split
