"""A challenger with five points more errors: what clients see of it under our plans, and under an instant switch.

The instant switch gives it all traffic at once. How long that lasts is a matter of definition; this one favours the
switch. Its operator is told at the very moment at which the same sequential test, at the same level and margin, would
tell: fed each second with what the new version answered, and with as many seconds of the old version's answers from
just before the switch. And the old version's replica is kept, so that one order brings it back. But a person needs a
minute from the alarm to that order.

All runs have the same clients at the same rate, and are compared over as many requests from the release on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks._gateway_events import CHECKS
from benchmarks._gateway_installation import AT_ONCE, MODEL, Installation, Load
from bentos.counters import Block, Snapshot, block
from bentos.envoy_stats import read_stats
from bentos.orders import undo
from bentos.sequential.rates import RateTest
from lake.ledger.rollout_state import RolloutState
from lake.recipe import Rollout, RolloutCheck, RolloutStep
from lake.recipe.rollout_metrics import metric

CHAMPION_ERRORS, CHALLENGER_ERRORS = 0.01, 0.06
REACTION_S = 60.0
# So many seconds of the champion are kept for the operator's comparison; the test tells within a few.
BEFORE_S = 15
LOOK_S = 1.0
DEFAULT = Rollout()
# A check may spend as much of the error budget here as in the default plan with all of its checks.
_BUDGET = DEFAULT.check_budget * sum(check.severity == "fail" for check in CHECKS)


@dataclass(frozen=True)
class Run:
    """What clients met since the release: requests asked, answers of the challenger, failures.

    `n_until_back` are the requests until the last one that the challenger answered.
    """

    name: str
    load: Load
    released_s: float
    challenger: str
    reason: str

    def first(self, n: int) -> tuple[int, int]:
        """How many of the first `n` requests since the release the challenger answered, and how many of them failed."""
        asked = sorted(found for found in self.load.asked if found[0] >= self.released_s)[:n]
        outcomes = [outcome for _, _, outcome in asked]
        return sum(self.challenger in outcome.split() for outcome in outcomes), sum(
            " " in outcome for outcome in outcomes
        )

    @property
    def n_until_back(self) -> int:
        last_s = max((found[0] for found in self.load.of(self.challenger)), default=self.released_s)
        return sum(self.released_s <= began_s <= last_s for began_s, _, _ in self.load.asked)

    @property
    def rate(self) -> float:
        """Requests a second, as they really were."""
        return len(self.load.asked) / (self.load.asked[-1][1] - self.load.asked[0][0])

    @property
    def n_broken(self) -> int:
        """Failures that no server was told to make."""
        return len(self.load.failures)


def plan(*, with_shadow: bool) -> Rollout:
    """Canary 5, 25, 50%, behind the default plan's shadow or not, with the default check of errors at its own level."""
    steps = tuple(RolloutStep(stage="canary", share=share, min_requests=1000) for share in (0.05, 0.25, 0.5))
    return Rollout(
        steps=(RolloutStep(stage="shadow", share=1.0, min_requests=1000), *steps) if with_shadow else steps,
        checks=(RolloutCheck(metric="error_rate"), *CHECKS[1:]),
        error_budget=_BUDGET,
        cool_down_s=0,
    )


def switched(installed: Installation, reaction_s: float = REACTION_S) -> Run:
    """The instant switch, until the operator has switched back."""
    champion = installed.champion(CHAMPION_ERRORS)
    with installed.load() as load:
        before = _blocks(installed, champion, BEFORE_S)
        rollout = installed.offer(AT_ONCE.model_copy(update={"retain_champion_s": 600}), error_rate=CHALLENGER_ERRORS)
        challenger = rollout.challenger
        snapshot = _first_answer(installed, challenger)
        n, p = _told(installed, challenger, snapshot, before)
        time.sleep(reaction_s)
        undo(installed.ledger, MODEL, "failures")
        time.sleep(3)
    released_s = min(found[0] for found in load.of(challenger))
    reason = f"the operator's test told after {n} of its answers (p = {p:.1g}), the order came {reaction_s:.0f} s later"
    return Run("instant switch", load, released_s, challenger, reason)


def rolled_out(installed: Installation, name: str, wanted: Rollout, n: int) -> Run:
    """A rollout by a plan, with `n` requests from its release on, or until its end if that is later."""
    installed.champion(CHAMPION_ERRORS)
    with installed.load() as load:
        time.sleep(2)
        rollout = installed.offer(wanted, error_rate=CHALLENGER_ERRORS)
        installed.wait_for_traffic(rollout)
        began_s = time.monotonic()
        ended = installed.wait_for(rollout, "rolled_back", "promoted", timeout_s=300)
        _expect_rolled_back(installed, ended)
        time.sleep(3)
        # No more than these were asked before the release.
        load.at_least = int(installed.rate * (began_s - load.began_s)) + installed.n_clients + n
    # Its routes were confirmed before this was seen: no request that it has answered comes before.
    first_s = min((found[0] for found in load.of(rollout.challenger)), default=began_s)
    return Run(name, load, min(first_s, began_s), rollout.challenger, installed.reason(rollout))


def _expect_rolled_back(installed: Installation, ended: RolloutState) -> None:
    reason = installed.reason(ended)
    if ended.state != "rolled_back" or not reason.startswith("error_rate"):
        raise AssertionError(f"{ended.rollout_id} {ended.state}: {reason}; expected a rollback for its error_rate")


def _blocks(installed: Installation, version: str, n: int) -> list[Block]:
    """What a version answers in each of the next `n` seconds."""
    found, last = [], read_stats(installed.settings)
    for _ in range(n):
        time.sleep(LOOK_S)
        now = read_stats(installed.settings)
        found.append(_between(last, now, version))
        last = now
    return found


def _first_answer(installed: Installation, version: str) -> Snapshot:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        now = read_stats(installed.settings)
        counted = now.of(MODEL, version)
        if counted.n_answered + counted.n_errors > 0:
            return now
        time.sleep(0.1)
    raise AssertionError(f"no answer of {version} within 60 s")


def _told(installed: Installation, version: str, last: Snapshot, before: list[Block]) -> tuple[int, float]:
    """Look each second until the test tells that the version is worse; its answers until then, and the p-value."""
    test = RateTest(margin=metric("error_rate").margin)
    for ours in before:
        time.sleep(LOOK_S)
        now = read_stats(installed.settings)
        theirs = _between(last, now, version)
        test = test.updated(ours.n_requests, ours.n_errors, theirs.n_requests, theirs.n_errors)
        last = now
        if test.p_worse() < DEFAULT.check_budget:
            return test.n_challenger, test.p_worse()
    raise AssertionError(f"no verdict within {len(before)} s: p = {test.p_worse():.2g}")


def _between(last: Snapshot, now: Snapshot, version: str) -> Block:
    found = block(last, now, MODEL, version)
    if found is None:
        raise AssertionError("the gateway began to count anew, expected one that runs on")
    return found
