"""`python -m tests.chaos`: kill points by the hundred. Ends with 1 when anything was lost, doubled, half-read or stuck."""

from __future__ import annotations

import argparse
import random
import sys
import time

from rich.console import Console

from tests.chaos import report
from tests.chaos.campaign import Campaign
from tests.chaos.points import Outcome, Point, campaign, thinned


def main() -> int:
    arguments = _arguments()
    points = _points(arguments)
    console, started = Console(width=None if sys.stdout.isatty() else 160), time.monotonic()
    console.print(f"seed {arguments.seed}, {len(points)} points")

    def told(outcome: Outcome) -> None:
        console.print(report.in_words(outcome), highlight=False, soft_wrap=True, markup=False)

    with Campaign() as played:
        outcomes = played.play(points, told, started + arguments.minutes * 60)
    took_s = time.monotonic() - started
    report.show(outcomes, console)
    for outcome in outcomes:
        for found in outcome.violations:
            console.print(
                f"VIOLATION seed {arguments.seed} point {outcome.point}: {found.rule}: {found.evidence}", markup=False
            )
    console.print(f"{len(outcomes)} of {len(points)} points in {took_s / 60:.1f} minutes")
    if arguments.point is None and not arguments.only:
        console.print(f"written to {report.write(outcomes, arguments.seed, took_s)}")
    return int(any(outcome.violations for outcome in outcomes))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 1_000_000))
    parser.add_argument("--points", type=int, default=10**6, help="at most so many, spread over all kinds")
    parser.add_argument("--only", default="", help="kinds whose target or fault has this in its name")
    parser.add_argument("--minutes", type=float, default=45.0, help="no point begins after that")
    parser.add_argument("--point", type=int, help="replay this one point of the seed's campaign")
    return parser.parse_args()


def _points(arguments: argparse.Namespace) -> list[Point]:
    points = [point for point in campaign(arguments.seed) if arguments.only in f"{point.target}: {point.fault}"]
    if arguments.point is not None:
        return [point for point in points if point.number == arguments.point]
    return thinned(points, arguments.points)


if __name__ == "__main__":
    sys.exit(main())
