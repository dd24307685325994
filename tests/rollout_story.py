"""Rollouts made by hand in a ledger, with looks as a controller keeps them: what shows rollouts has something to show.

The traffic is drawn from a seed. The intervals are those of a Gaussian mixture over a sum with estimated variance, which
looks like the real ones; nothing here is a test of statistics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from lake.ledger import Ledger
from lake.ledger.rollout_state import RolloutState
from lake.ledger.tables import rollout_decisions, rollout_looks, rollouts, versions
from lake.recipe import Rollout
from lake.recipe.rollout import RolloutCheck, RolloutStep
from lake.records import CheckResult, CheckVerdict, ClusterStats, RolloutDecision, RolloutLook, SplitResult

BEGIN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
LOOK_S = 5.0
PLAN = Rollout(
    steps=(
        RolloutStep(stage="shadow", share=1.0, min_requests=200, min_duration_s=60),
        RolloutStep(stage="ab", share=0.5, min_requests=300, min_duration_s=120, pause="approval"),
        RolloutStep(stage="canary", share=0.75, min_requests=400, min_duration_s=120),
    ),
)
_SPREADS = {"latency_p50": 0.5, "latency_p95": 1.2, "first_token_p50": 0.5, "cpu_s": 0.5}


@dataclass
class Story:
    """One rollout to be told. `effects` are how much worse the challenger really is, by metric; unnamed: not at all."""

    ledger: Ledger
    model: str = "docs"
    challenger: str = "v2"
    champion: str | None = "v1"
    plan: Rollout = PLAN
    began: datetime = BEGIN
    requests_per_s: float = 6.0
    effects: dict[str, float] = field(default_factory=dict)
    seed: int = 1

    def __post_init__(self) -> None:
        self.rollout_id = f"{self.model}-{self.challenger}-1"
        self._random = np.random.default_rng(self.seed)
        self._n: dict[str, tuple[int, int]] = {}
        self._errors = [0, 0]
        self._at = self.began

    def begun(self) -> Story:
        """Enter the versions and the rollout, waiting for its challenger."""
        known: set[str | None] = {None, *(row.version for row in self.ledger.versions.all(self.model))}
        sides = ((self.champion, "champion"), (self.challenger, "challenger"))
        with self.ledger.engine.begin() as connection:
            for number, (version, state) in enumerate(sides, 1):
                if version not in known:
                    connection.execute(
                        versions.insert().values(
                            model=self.model, version=version, number=100 * number + len(known), state=state,
                            training_key=f"{self.model}-{version}", reason="drop", dataset_ids=[], parent=None,
                            message=None, created_at=self.began, live_at=self.began if number == 1 else None,
                        )
                    )  # fmt: skip
            connection.execute(
                rollouts.insert().values(
                    rollout_id=self.rollout_id, model=self.model, challenger=self.challenger, champion=self.champion,
                    plan=self.plan.model_dump(mode="json"), step_index=-1, state="running",
                    started_at=self.began, entered_at=self.began,
                )
            )  # fmt: skip
        return self

    def enter(self, step_index: int, reason: str = "its replica is ready") -> Story:
        before = self._stage(step_index - 1) if step_index else "pending"
        self._decide("promote" if step_index else "start", before, self.plan.steps[step_index].stage, reason)
        with self.ledger.engine.begin() as connection:
            connection.execute(
                rollouts.update()
                .where(rollouts.c.rollout_id == self.rollout_id)
                .values(step_index=step_index, entered_at=self._at)
            )
        self._entered, self._split = self._at, [0, 0]
        return self

    def look(self, duration_s: float, broken: bool = False) -> Story:
        """Let traffic come for a while, with a look every LOOK_S."""
        state, records = self.state, []
        for _ in range(int(duration_s / LOOK_S)):
            self._at += timedelta(seconds=LOOK_S)
            look = self._look(state.step_index, broken)
            records.append({"rollout_id": self.rollout_id, "record": look.model_dump(mode="json")})
        with self.ledger.engine.begin() as connection:  # one wait for the disk, not one a look
            connection.execute(rollout_looks.insert(), records)
        return self

    def hold(self, reason: str) -> Story:
        self._decide("hold", self._stage(), self._stage(), reason)
        return self

    def end(self, state: str, reason: str) -> RolloutState:
        """`promoted` or `rolled_back`."""
        promoted = state == "promoted"
        self._decide(
            "promote" if promoted else "roll_back", self._stage(), "full" if promoted else "rolled_back", reason
        )
        with self.ledger.engine.begin() as connection:
            connection.execute(
                rollouts.update().where(rollouts.c.rollout_id == self.rollout_id).values(state=state, ended_at=self._at)
            )
            of_model = versions.c.model == self.model
            if promoted:
                connection.execute(
                    versions.update().where(of_model, versions.c.state == "champion").values(state="retired")
                )
            connection.execute(
                versions.update()
                .where(of_model, versions.c.version == self.challenger)
                .values(state="champion" if promoted else state, live_at=self._at if promoted else None)
            )
        return self.state

    @property
    def state(self) -> RolloutState:
        found = self.ledger.rollouts.get(self.rollout_id)
        assert found is not None
        return found

    def _stage(self, index: int | None = None) -> str:
        step_index = self.state.step_index if index is None else index
        return self.plan.steps[step_index].stage if step_index >= 0 else "pending"

    def _decide(self, action: str, from_stage: str, to_stage: str, reason: str) -> None:
        last = self.ledger.rollout_looks.last(self.rollout_id)
        nothing = ClusterStats(n_requests=0, n_errors=0, latency_mean_ms=0.0, latency_p95_ms=0.0)
        decision = RolloutDecision.model_validate({
            "rollout_id": self.rollout_id, "model": self.model, "challenger": self.challenger,
            "champion": self.champion, "action": action, "from_stage": from_stage, "to_stage": to_stage,
            "reason": reason, "champion_stats": last.champion_stats if last else nothing,
            "challenger_stats": last.challenger_stats if last else nothing, "decided_at": self._at,
            "checks": last.checks if last else (), "split": last.split if last else None,
        })  # fmt: skip
        with self.ledger.engine.begin() as connection:
            connection.execute(
                rollout_decisions.insert().values(
                    rollout_id=self.rollout_id, record=decision.model_dump(mode="json"), decided_at=self._at
                )
            )

    def _look(self, step_index: int, broken: bool) -> RolloutLook:
        step = self.plan.steps[step_index]
        n = int(self._random.poisson(self.requests_per_s * LOOK_S))
        share = step.share * (0.8 if broken else 1.0)
        n_challenger = int(self._random.binomial(n, share))
        n_champion = n if step.stage == "shadow" else n - n_challenger
        self._split[0] += n_champion
        self._split[1] += n_challenger
        checks = []
        for check in self.plan.checks:
            before = self._n.get(check.metric, (0, 0))
            if step.stage in check.of.stages:
                self._n[check.metric] = (before[0] + n_champion, before[1] + n_challenger)
            if check.metric in self._n:
                checks.append(self._result(check, *self._n[check.metric]))
        split = None
        if step.stage != "shadow":
            a, b = self._split
            z = abs(b - step.share * (a + b)) / math.sqrt(max(1.0, step.share * (1 - step.share) * (a + b)))
            p_value = min(1.0, 3 * math.exp(-z * z / 2))
            split = SplitResult(share=step.share, n_champion=a, n_challenger=b, p_value=p_value, broken=p_value < 1e-3)
        return RolloutLook(
            rollout_id=self.rollout_id, step_index=step_index, stage=step.stage, share=step.share,
            elapsed_s=(self._at - self._entered).total_seconds(), looked_at=self._at,
            champion_stats=self._stats(0, 1.0), challenger_stats=self._stats(1, self.effects.get("latency_p50", 1.05)),
            checks=tuple(checks), split=split,
        )  # fmt: skip

    def _stats(self, side: int, factor: float) -> ClusterStats:
        n, errors = self._split[side], int(0.01 * self._split[side])
        if side:
            errors = int((0.01 + self.effects.get("error_rate", 0.0)) * n)
        jitter = 1 + 0.2 * float(self._random.standard_normal()) / math.sqrt(max(1, n / 20))
        return ClusterStats(
            n_requests=n, n_errors=errors, latency_mean_ms=420 * factor * jitter, latency_p95_ms=990 * factor * jitter
        )

    def _result(self, check: RolloutCheck, n_champion: int, n_challenger: int) -> CheckResult:
        is_ratio = check.of.unit == "ratio"
        true = self.effects.get(check.metric, 1.0 if is_ratio else 0.15 if check.metric == "agreement" else 0.0)
        alpha, n = self.plan.check_budget, max(1.0, n_champion * n_challenger / max(1, n_champion + n_challenger))
        spread = _SPREADS.get(check.metric, 0.13 if check.of.kind == "rate" else 0.4)
        rho = 0.1
        half = spread * math.sqrt(2 * (n * rho**2 + 1) / (n * rho) ** 2 * math.log(math.sqrt(n * rho**2 + 1) / alpha))
        noise = spread * float(np.random.default_rng(hash_of(check.metric)).standard_normal()) / math.sqrt(n)
        centre = (math.log(true) if is_ratio else true) + 0.7 * noise
        effect, lower, upper = (
            (math.exp(value) if is_ratio else max(-1.0, min(1.0, value)))
            for value in (centre, centre - half, centre + half)
        )
        base = {"error_rate": 0.01, "cpu_s": 0.8, "latency_p95": 990.0, "agreement": 1.0}.get(check.metric, 0.02)
        base = 420.0 if check.metric in ("latency_p50", "first_token_p50") else base
        few = min(n_champion, n_challenger)
        verdict: CheckVerdict = "no_data" if few == 0 else "too_little" if few < check.min_samples else "undecided"
        if few >= check.min_samples:
            verdict = "worse" if lower > check.allowed else "fine" if upper < check.allowed else "undecided"
        gap = (math.log(check.allowed) if is_ratio else check.allowed) - centre
        return CheckResult(
            metric=check.metric, severity=check.severity, verdict=verdict, n_champion=n_champion,
            n_challenger=n_challenger, champion=base, challenger=base * effect if is_ratio else max(0.0, base + effect),
            effect=effect if few else None, lower=lower if few else None, upper=upper if few else None,
            margin=check.allowed, alpha=alpha,
            p_value=1.0 if gap >= 0 else min(1.0, math.exp(-n * gap**2 / (2 * spread**2))),
            reason=f"{n_challenger} of the challenger, {n_champion} of the champion",
        )  # fmt: skip


def check(**changes: object) -> CheckResult:
    """One check as it stands: errors, undecided."""
    values: dict[str, object] = {
        "metric": "error_rate", "severity": "fail", "verdict": "undecided", "n_champion": 100, "n_challenger": 90,
        "champion": 0.01, "challenger": 0.03, "effect": 0.02, "lower": -0.01, "upper": 0.05, "margin": 0.005,
        "alpha": 0.001, "p_value": 0.2, "reason": "",
    }  # fmt: skip
    return CheckResult.model_validate({**values, **changes})


def hash_of(name: str) -> int:
    return sum(ord(character) * 31**place for place, character in enumerate(name)) % 2**32


def promoted(ledger: Ledger, **changes: object) -> RolloutState:
    """v2 wins against v1 in all three steps."""
    story = Story(ledger, **changes).begun().enter(0).look(90)  # type: ignore[arg-type]
    story.enter(1, "v2 failed 1.0%, v1 1.0%").look(150).hold("waiting for approval: 'tidemill rollout approve docs'")
    story.look(60).enter(2, "approved").look(150)
    return story.end("promoted", "v2 failed 9 of 742 (1.21%), v1 3 of 252 (1.19%); mean latency 431 ms against 420 ms")


def rolled_back(ledger: Ledger, **changes: object) -> RolloutState:
    """A challenger with 14 points more errors goes in the A/B step."""
    values: dict[str, object] = {"effects": {"error_rate": 0.14, "latency_p50": 1.4}, **changes}
    story = Story(ledger, **values).begun().enter(0)  # type: ignore[arg-type]
    story.look(30).enter(1, "v3 failed 5 of 180, v1 2 of 180").look(60)
    return story.end("rolled_back", "error_rate: +14.1 points worse, +0.5 points allowed (183 of the challenger)")


def under_way(ledger: Ledger, **changes: object) -> Story:
    """In its canary step."""
    story = Story(ledger, **changes).begun().enter(0).look(90)  # type: ignore[arg-type]
    return story.enter(1, "no check is worse").look(130).enter(2, "approved").look(65)
