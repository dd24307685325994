"""Plays points one after the other: each on the bench of its target, which is set up when it is first needed."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import Protocol

from tests.chaos.invariants import Violation
from tests.chaos.live_points import SERVICES, LivePoints
from tests.chaos.loop_points import LoopPoints
from tests.chaos.points import Outcome, Point
from tests.chaos.rollout_points import RolloutPoints
from tests.chaos.stage_points import STAGES, StagePoints
from tests.chaos.world import World

# Prefect declares a run crashed when it hears of its death; what is under way after that is stuck.
RUNS_END_WITHIN_S = 90.0
# Benches of their own, which come last.
APART = ("rollout controller", "whole loop")


class Bench(Protocol):
    def run(self, point: Point) -> Outcome: ...


class Campaign:
    """All benches of one campaign. They share one store and ledger where they can."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._shared = self._stack.enter_context(ExitStack())
        self._lives = False

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def play(self, points: Iterable[Point], told: Callable[[Outcome], None], until_s: float) -> list[Outcome]:
        """Play points until `until_s` on the monotonic clock. A bench that breaks is a violation, too."""
        outcomes = []
        for point in points:
            if time.monotonic() > until_s:
                break
            if outcomes and point.target in APART:
                outcomes[-1].violations += self._end_world()
            started = time.monotonic()
            try:
                outcome = self._bench(point.target).run(point)
            except Exception:
                outcome = Outcome(point, violations=[Violation("stuck", traceback.format_exc())])
                outcome.took_s = time.monotonic() - started
            outcomes.append(outcome)
            told(outcome)
        if outcomes:
            outcomes[-1].violations += self._end_world()
        return outcomes

    def _bench(self, target: str) -> Bench:
        if target in STAGES:
            return self._stages
        if target in (*SERVICES, "ledger"):
            return self._live
        return self._loop if target == "whole loop" else self._rollouts

    @cached_property
    def _world(self) -> World:
        world = World()
        self._shared.callback(world.close)
        world.start_store()
        return world

    @cached_property
    def _stages(self) -> StagePoints:
        return StagePoints(self._world)

    @cached_property
    def _live(self) -> LivePoints:
        self._world.start_prefect()
        self._world.start_serve()
        self._lives = True
        return LivePoints(self._world)

    @cached_property
    def _rollouts(self) -> RolloutPoints:
        return self._stack.enter_context(RolloutPoints())

    @cached_property
    def _loop(self) -> LoopPoints:
        return self._stack.enter_context(LoopPoints())

    def _end_world(self) -> Iterator[Violation]:
        """The shared installation ends; the benches after it have the machine to themselves."""
        if self._lives:
            yield from self._runs_under_way()
        self._lives = False
        self._shared.close()

    def _runs_under_way(self) -> Iterator[Violation]:
        """No flow run is left running or pending for ever."""
        deadline = time.monotonic() + RUNS_END_WITHIN_S
        while (runs := self._world.runs_under_way()) and time.monotonic() < deadline:
            time.sleep(1)
        for run in runs:
            yield Violation("stuck", f"flow run {run['name']} is {run['state_type']} and nothing runs it")
