"""Live figures of the gateway and the rollout controller: real Envoy, real supervisor, real controller, under load.

In place of bentos there are small real HTTP servers (`_gateway_server`), which answer after 5 ms: what is measured is
what stands before them. Clients are a process of their own: eight connections on loopback at a steady rate, and
nothing is asked twice.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks._gateway_events import Event, events
from benchmarks._gateway_exposure import CHALLENGER_ERRORS, CHAMPION_ERRORS, REACTION_S, Run, plan, rolled_out, switched
from benchmarks._gateway_installation import Installation, installation
from benchmarks._gateway_overhead import Overhead, overhead
from benchmarks.report import Figure, at_least, at_most, show, told

N_EVENT, N_OVERHEAD, N_REPEATS = 5_000, 1_000, 2
RATE = 420.0
MAX_EXPOSED, MIN_FEWER = 0.02, 0.7
STAND_IN = "small HTTP servers in place of bentos"


def run(*, n_event: int = N_EVENT, reaction_s: float = REACTION_S, n_repeats: int = N_REPEATS) -> list[Figure]:
    """All figures. Smaller numbers make a quick run whose figures mean little, for tests."""
    console = Console()
    with (
        tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name,
        installation(Path(name), rate=RATE) as installed,
    ):
        seen = []
        for event in events(n_event):
            seen.append(event(installed))
            _tell(seen[-1], console)
        _show_events(seen, console)
        cost = overhead(installed, min(n_event, N_OVERHEAD))
        runs = _exposures(installed, reaction_s, n_repeats)
    return [*_event_figures(seen), *_exposure_figures(runs, reaction_s, console), *_overhead_figures(cost, n_event)]


def _exposures(installed: Installation, reaction_s: float, n_repeats: int) -> list[Run]:
    """The instant switch first: the others get as many requests. Repeats of the canary end with its rollback."""
    switch = switched(installed, reaction_s)
    n = switch.n_until_back
    shadowed = rolled_out(installed, "shadow, canary 5, 25, 50%", plan(with_shadow=True), n)
    canaries = [
        rolled_out(installed, "canary 5, 25, 50%", plan(with_shadow=False), n if turn == 0 else 0)
        for turn in range(1 + n_repeats)
    ]
    return [switch, shadowed, *canaries]


def _event_figures(seen: Sequence[Event]) -> list[Figure]:
    figures = []
    for event in seen:
        apart = [
            f"{event.n_requests} requests",
            *([f"{event.n_lost} more were in the killed process's hands"] if event.n_lost else []),
            *([f"{event.n_injected} errors were the challenger's own"] if event.n_injected else []),
        ]
        how = f"{', '.join(apart)}; {event.how}"
        if event.name == "Envoy SIGKILL":  # nobody else listens until it is started again: nothing could make it 0
            figures.append(told(f"{event.name}: failed", event.n_failed, "requests", how))
            continue
        figures.append(at_most(f"{event.name}: failed", event.n_failed, 0, "requests", how))
        if "SIGKILL" in event.name and "controller" not in event.name:
            figures.append(at_most(f"{event.name}: lost", event.n_lost, 8, "requests", "one of each client at most"))
    undone = next(event for event in seen if event.name.startswith("rollout undo, champion retained"))
    how = f"from the order until the last request that the other version answered; {undone.n_requests} requests"
    return [*figures, told("rollout undo, champion retained", 1000 * (undone.took_s or 0), "ms", how)]


def _exposure_figures(runs: Sequence[Run], reaction_s: float, console: Console) -> list[Figure]:
    switch, shadowed, *canaries = runs
    n = switch.n_until_back
    exposed, failed = switch.first(n)
    _show_exposures(runs, n, console)
    definition = (
        f"of the {exposed} that an instant switch exposed, whose operator is told when the same test would tell and "
        f"switches back {reaction_s:.0f} s later ({switch.rate:.0f} requests/s, {CHAMPION_ERRORS:.0%} against "
        f"{CHALLENGER_ERRORS:.0%} errors)"
    )
    same = f"in the first {n} requests since the release, the champion's own failures included"
    answered = [canary.first(n)[0] for canary in canaries]
    share, window = median(answered) / exposed, median(canary.n_until_back for canary in canaries)
    return [
        at_most("answered, shadow first", shadowed.first(n)[0] / exposed, MAX_EXPOSED, "", definition),
        at_least("fewer failures, shadow first", 1 - shadowed.first(n)[1] / failed, MIN_FEWER, "", same),
        at_most("answered, canary at once", share, MAX_EXPOSED, "", f"median of {len(canaries)} runs; {definition}"),
        at_least("fewer failures, canary at once", 1 - canaries[0].first(n)[1] / failed, MIN_FEWER, "", same),
        told("answered, canary at once, of its own time", median(answered) / window, "", "of all requests until it was "
             "back: what it would be if the switch's operator needed no time and no more evidence than ours"),
        told("answered until rolled back, canary at once", median(answered), "requests", f"{answered} in each run"),
        at_most("failed for other reasons", sum(found.n_broken for found in runs), 0, "requests", "in all of these runs"),
    ]  # fmt: skip


def _overhead_figures(cost: Overhead, n_event: int) -> list[Figure]:
    how = f"one client, {min(n_event, N_OVERHEAD)} requests each way in turn; {STAND_IN}"
    return [
        told("gateway, CPU", cost.cpu_ms, "ms a request", how),
        told(
            "latency p50, added",
            cost.gateway_p50_ms - cost.direct_p50_ms,
            "ms",
            f"to {cost.direct_p50_ms:.1f} ms; {how}",
        ),
        told(
            "latency p99, added",
            cost.gateway_p99_ms - cost.direct_p99_ms,
            "ms",
            f"to {cost.direct_p99_ms:.1f} ms; {how}",
        ),
    ]


def _tell(event: Event, console: Console) -> None:
    """As it happens; each kind of failure with its number, first and last."""
    console.print(f"  {event.name}: {event.n_failed} of {event.n_requests} failed", style="dim", soft_wrap=True)
    for failure in (*event.failures[:3], *event.failures[3:][-1:]):
        console.print(f"    {failure}", style="dim", soft_wrap=True, markup=False)


def _show_events(seen: Sequence[Event], console: Console) -> None:
    table = Table("what happened", "requests", "failed", "killed with its server", "told to fail", "how",
                  title=f"under load; {STAND_IN}", title_justify="left")  # fmt: skip
    for event in seen:
        table.add_row(
            event.name, str(event.n_requests), str(event.n_failed), str(event.n_lost), str(event.n_injected), event.how
        )
    console.print(table)


def _show_exposures(runs: Sequence[Run], n: int, console: Console) -> None:
    table = Table("release by", "answered by it", "failed", "requests until it was back", "why",
                  title=f"{CHAMPION_ERRORS:.0%} against {CHALLENGER_ERRORS:.0%} errors, first {n} requests; {STAND_IN}",
                  title_justify="left")  # fmt: skip
    for found in runs:
        answered, failed = found.first(n)
        n_asked = sum(began_s >= found.released_s for began_s, _, _ in found.load.asked)
        short = "" if n_asked >= n else f" (of {n_asked})"
        table.add_row(found.name, str(answered), f"{failed}{short}", str(found.n_until_back), found.reason)
    console.print(table)


if (
    __name__ == "__main__"
):  # `python -m benchmarks.gateway --quick`: all of it, in three minutes, with figures that say little
    quick = sys.argv[1:] == ["--quick"]
    show("gateway", run(n_event=300, reaction_s=5, n_repeats=0) if quick else run(), Console())
