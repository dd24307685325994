"""Kill points: what is struck, how, and with which seed. The same seed gives the same campaign."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.chaos.invariants import Violation

# Kill points of the whole campaign: target, fault, how many. Targets of one installation follow each other.
PLAN: tuple[tuple[str, str, int], ...] = (
    ("beam job", "kill", 32),
    ("beam job", "kill, request in flight", 8),
    ("beam job", "stop, taken over, resume", 12),
    ("beam job", "store fault", 16),
    ("trainer", "kill", 12),
    ("trainer", "stop, taken over, resume", 4),
    ("exporter", "kill", 8),
    ("exporter", "stop, taken over, resume", 3),
    ("packager", "kill", 8),
    ("packager", "stop, taken over, resume", 3),
    ("watcher", "kill", 12),
    ("watcher", "stop and resume", 6),
    ("watcher", "store fault", 8),
    ("flow", "kill", 14),
    ("flow", "kill, request in flight", 6),
    ("flow", "stop and resume", 6),
    ("flow", "stop, taken over, resume", 6),
    ("flow", "store fault", 10),
    ("nanio", "kill", 10),
    ("nanio", "stop and resume", 5),
    ("nanio", "disk full", 5),
    ("ledger", "disk full", 4),
    ("Prefect server", "kill", 8),
    ("Prefect server", "stop and resume", 4),
    ("watcher", "clock step", 3),
    ("rollout controller", "kill", 10),
    ("rollout controller", "stop and resume", 4),
    ("whole loop", "kill", 3),  # five processes each
)
# What `make test` plays of it: the first few of each cheap kind.
SUBSET: tuple[tuple[str, str, int], ...] = (
    ("beam job", "kill", 3),
    ("beam job", "kill, request in flight", 1),
    ("beam job", "stop, taken over, resume", 2),
    ("beam job", "store fault", 2),
    ("watcher", "kill", 2),
    ("watcher", "store fault", 1),
    ("flow", "kill", 2),
    ("flow", "store fault", 1),
    ("nanio", "kill", 1),
)


@dataclass(frozen=True)
class Point:
    """`number` counts from 0 within the campaign of this seed."""

    seed: int
    number: int
    target: str
    fault: str

    def draw(self) -> random.Random:
        """Everything that is random about this point is drawn from here."""
        return random.Random(f"{self.seed}/{self.number}")

    @property
    def batch_seed(self) -> int:
        return self.seed * 10_000 + self.number

    def __str__(self) -> str:
        return f"{self.number:3d} {self.target}: {self.fault}"


@dataclass
class Outcome:
    """What a point did. `recovery_s`: from the fault (or its end, when it lasts) until all was settled."""

    point: Point
    fired: bool = False
    n_strikes: int = 1
    recovery_s: float | None = None
    took_s: float = 0.0
    where: str = ""
    skipped: str | None = None
    violations: list[Violation] = field(default_factory=list)


def campaign(seed: int) -> list[Point]:
    """All points, numbered."""
    kinds = [(target, fault) for target, fault, n_points in PLAN for _ in range(n_points)]
    return [Point(seed, number, target, fault) for number, (target, fault) in enumerate(kinds)]


def subset(seed: int) -> list[Point]:
    """Some of the campaign's points, with the numbers that they have in it."""
    points = campaign(seed)
    return [
        point
        for target, fault, n_points in SUBSET
        for point in [each for each in points if (each.target, each.fault) == (target, fault)][:n_points]
    ]


def thinned(points: list[Point], n_points: int) -> list[Point]:
    """At most `n_points` of them, spread evenly. They keep their numbers, and so what they do."""
    if n_points >= len(points):
        return points
    return [points[index * len(points) // n_points] for index in range(n_points)]
